"""Finding and opening the library, in fresh processes: once opened, a library stays open."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import textopia_fast
from tests.ort import graphs
from textopia_fast import _core, _ort

ADD = f"ADD = {graphs.add()!r}\n"


def run_python(code: str, **environment: str) -> str:
    """Standard output of `code` in a new interpreter; fails with its standard error."""
    root = Path(textopia_fast.__file__).parents[1]
    variables = {
        key: value
        for key, value in os.environ.items()
        if key not in ("TEXTOPIA_ORT_LIBRARY", "ORT_DISABLE_TELEMETRY")
    }
    variables["PYTHONPATH"] = os.pathsep.join(
        [str(root), *filter(None, [variables.get("PYTHONPATH")])]
    )
    done = subprocess.run(
        [sys.executable, "-c", ADD + textwrap.dedent(code)],
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_finds_the_installed_wheel_without_importing_it():
    code = """
        import sys
        from textopia_fast import _ort
        libraries = _ort.find_libraries()
        assert libraries and all("libonnxruntime.so.1" in name for name in libraries)
        assert "onnxruntime" not in sys.modules
        info = _ort.runtime_info()
        assert "onnxruntime" not in sys.modules
        print(info["path"] == libraries[0], info["version"])
    """
    same, version = run_python(code).split()
    assert same == "True"
    assert version.startswith("1.")


def test_runtime_info():
    info = _ort.runtime_info()
    minor = int(info["version"].split(".")[1])
    assert 23 <= info["api_version"] <= minor
    assert "CPUExecutionProvider" in info["providers"]


def test_no_library_says_what_to_install_and_a_later_install_is_seen():
    code = """
        from textopia_fast import _core, _ort, errors
        for candidates in ([], ["/nowhere/libonnxruntime.so.1"]):
            _core.set_ort_candidates(candidates)
            try:
                _core.Session.from_memory(ADD)
            except errors.ConfigurationError as error:
                assert "textopia-fast[cpu]" in str(error), error
                assert "textopia-fast[cuda]" in str(error), error
                assert all(name in str(error) for name in candidates), error
            else:
                raise AssertionError
        print(_ort.create_session(ADD).label)
    """
    assert run_python(code) == "graph"


@pytest.mark.parametrize("kind", ["text", "other library", "missing"])
def test_the_environment_variable_wins_even_when_it_is_wrong(tmp_path, kind):
    path = tmp_path / "libonnxruntime.so"
    if kind == "text":
        path.write_text("not a library")
    elif kind == "other library":
        path = Path(_core.__file__)
    code = """
        from textopia_fast import _ort, errors
        try:
            _ort.create_session(ADD)
        except errors.ConfigurationError as error:
            print(error.message)
    """
    message = run_python(code, TEXTOPIA_ORT_LIBRARY=str(path))
    assert "TEXTOPIA_ORT_LIBRARY" in message
    assert str(path) in message


def test_the_environment_variable_can_name_the_library():
    (library, *_) = _ort.find_libraries()
    code = """
        from textopia_fast import _core
        print(_core.ort_info()["path"])
    """
    assert run_python(code, TEXTOPIA_ORT_LIBRARY=library) == library


GETENV = """
    import ctypes
    def variable():
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        return libc.getenv(b"ORT_DISABLE_TELEMETRY")
"""


def test_telemetry_is_off_unless_the_user_says_otherwise(tmp_path):
    code = (
        GETENV
        + """
    from textopia_fast import _ort
    _ort.create_session(ADD)
    print(variable())
    """
    )
    assert run_python(code, HOME=str(tmp_path)) == "b'1'"
    assert list(tmp_path.rglob("*onnxruntime*")) == []


def test_a_users_telemetry_setting_is_kept():
    code = (
        GETENV
        + """
    from textopia_fast import _core, errors
    _core.set_ort_candidates([])
    try:
        _core.ort_info()
    except errors.ConfigurationError:
        print(variable())
    """
    )
    assert run_python(code, ORT_DISABLE_TELEMETRY="0") == "b'0'"


def test_sessions_of_a_parent_are_refused_in_a_forked_child():
    code = """
        import os, sys
        import numpy as np
        from textopia_fast import _core, _ort, errors
        session = _ort.create_session(ADD, threads=2)
        x = np.ones((1, 16), np.float32)
        binding = _core.Binding(session)
        binding.input("a", x); binding.input("b", x); binding.output("y", x.copy())
        binding.run()
        child = os.fork()
        if child == 0:
            kinds = []
            for call in (
                lambda: session.run({"a": x, "b": x}),
                binding.run,
                lambda: _ort.create_session(ADD),
                _ort.runtime_info,
            ):
                try:
                    call()
                except errors.ForkedProcessError as error:
                    assert error.hint
                    kinds.append(error.code)
            del session, binding  # must not wait for the parent's threads
            print(len(kinds), set(kinds), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert session.run({"a": x, "b": x})["y"][0, 0] == 2
    """
    assert run_python(code) == "4 {'forked_process'}"


def test_a_child_may_open_the_library_when_its_parent_did_not():
    code = """
        import os
        from textopia_fast import _ort
        child = os.fork()
        if child == 0:
            print(_ort.create_session(ADD).label, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    assert run_python(code) == "graph"


def test_exit_with_live_sessions_and_beside_the_python_package():
    pytest.importorskip("onnxruntime")
    code = """
        import numpy as np
        from textopia_fast import _core, _ort
        session = _ort.create_session(ADD, threads=2)
        import onnxruntime
        other = onnxruntime.InferenceSession(ADD, providers=["CPUExecutionProvider"])
        x = np.ones((1, 16), np.float32)
        binding = _core.Binding(session)
        feeds = {"a": x, "b": x}
        assert session.run(feeds)["y"][0, 0] == other.run(None, feeds)[0][0, 0]
        print("done")
    """
    assert run_python(code) == "done"


def test_import_searches_and_opens_nothing():
    code = """
        import sys, importlib.util
        def refuse(*arguments):
            raise AssertionError("searched at import")
        importlib.util.find_spec = refuse
        import textopia_fast, textopia_fast._ort
        with open("/proc/self/maps") as maps:
            print("libonnxruntime" in maps.read())
    """
    assert run_python(code) == "False"
