"""What runs the graphs: ONNX Runtime's CPU provider, or OpenVINO through its plugin.

The plugin is a library in a package of its own, which is located and not imported; the core
registers it with ONNX Runtime, once in a process.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from . import _core
from ._ort import MAX_THREADS, register
from .checks import check_integer, refuse
from .errors import ConfigurationError

__all__ = ["PROVIDERS", "choose_provider", "describe_openvino", "describe_provider"]

PROVIDERS = (None, "auto", "cpu", "openvino")
_INSTALL = 'pip install "textopia-fast[openvino]"'
_DISTRIBUTION = "onnxruntime-ep-openvino"
_PACKAGE = "onnxruntime_ep_openvino"
_LIBRARY = "libonnxruntime_providers_openvino_plugin.so"
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def choose_provider(
    provider: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    device: str | _core.Gpu = "cpu",
) -> _core.Plugin | None:
    """The plugin that runs the graphs, opened; None for ONNX Runtime's CPU provider.

    Args:
        provider: "openvino"; or None, "auto" or "cpu", which are the same.
        precision: "fp32" or "bf16", what OpenVINO computes in.
        threads: OpenVINO's threads, up to 1024; None (or 0) means one per usable CPU.
        device: Where the loop runs; a GPU has the provider of its own alone.

    Raises:
        ConfigurationError: No such provider; the plugin is not installed or cannot be opened, or
            offers no CPU on this machine; or there is no ONNX Runtime that is new enough for it.
    """
    if not (provider is None or isinstance(provider, str)) or provider not in PROVIDERS:
        choices = ", ".join(map(repr, PROVIDERS))
        refuse("provider", provider, f"in this version are {choices}", kind=ConfigurationError)
    if provider in ("cpu", "openvino") and device not in ("auto", "cpu"):
        refuse("provider", provider, "is None with a GPU", kind=ConfigurationError)
    if provider != "openvino":
        return None
    if precision not in _HINTS:
        choices = " and ".join(map(repr, _HINTS))
        refuse("precision", precision, f"for openvino are {choices}", kind=ConfigurationError)
    threads = check_integer(
        "threads", 0 if threads is None else threads, 0, MAX_THREADS, kind=ConfigurationError
    )
    library = _find_library()
    if library is None:
        raise ConfigurationError(
            f"provider: got 'openvino', whose package {_DISTRIBUTION} is not installed.",
            hint=f"Install it: {_INSTALL}",
            param="provider",
        )
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": str(threads or _core.usable_cpus()),
        "PERFORMANCE_HINT": "LATENCY",
    }
    plugin = _core.Plugin(
        library=library,
        provider="OpenVINOExecutionProvider",
        device={"ov_device": "CPU"},
        options={"load_config": json.dumps({"CPU": settings})},
    )
    register()
    try:
        plugin.check()
    except ConfigurationError as error:
        if error.hint is None:
            error.hint = (
                f"{_DISTRIBUTION} needs an Intel CPU and ONNX Runtime 1.23 or newer; "
                "provider='cpu' runs on every CPU."
            )
        raise
    return plugin


def describe_provider() -> str:
    """What "auto" is and why, and what else may be asked for."""
    return "auto is cpu; openvino may be asked for (it loads longer and takes more memory)"


def describe_openvino() -> str:
    """Whether provider="openvino" can be asked for here, and if not, why."""
    try:
        choose_provider("openvino")
    except ConfigurationError as error:
        return error.message.rstrip(".") + (f"; {_INSTALL}" if _find_library() is None else "")
    from importlib import metadata  # 15 milliseconds that only this needs

    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a copy without its metadata
        version = "of unknown version"
    return f"{_DISTRIBUTION} {version} is there"


def _find_library() -> str | None:
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):  # a half-removed package, or a stand-in module without a spec
        return None
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, _LIBRARY)
        if path.is_file():
            return str(path)
    return None
