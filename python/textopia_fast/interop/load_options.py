"""The keywords that programs give `from_pretrained`: those that hold here, and the others."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedParameterError

__all__ = ["check_load_options", "dtype_name", "has_dtype"]

# Downloads and memory of other libraries: nothing here depends on them.
_WITHOUT_EFFECT = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "low_cpu_mem_usage",
    "proxies",
    "requires_safety_checker",
    "resume_download",
    "token",
    "use_auth_token",
    "use_io_binding",
    "use_safetensors",
)
# Values that ask for what happens anyway.
_HONOURED: dict[str, tuple[Any, ...]] = {
    "device_map": (None, "cpu"),
    "dtype": (None, "auto"),
    "export": (None, False),
    "feature_extractor": (None,),
    "image_encoder": (None,),
    "provider": (None, "cpu", "CPUExecutionProvider"),
    "providers": (None, ["CPUExecutionProvider"], ("CPUExecutionProvider",)),
    "revision": (None, "main"),
    "safety_checker": (None,),
    "torch_dtype": (None, "auto"),
    "variant": (None,),
}


def check_load_options(options: dict[str, Any], dtype: str) -> None:
    """Raises for a keyword that cannot be honoured, as its value would not be.

    Args:
        options: What `from_pretrained` was given beside the path and its own keywords.
        dtype: In which the networks run; the other ones cannot be asked for.

    Raises:
        UnsupportedParameterError: It names the keyword.
    """
    for name, value in options.items():
        if name in _WITHOUT_EFFECT:
            continue
        allowed = _HONOURED.get(name, (None,))
        is_dtype = name in ("dtype", "torch_dtype") and dtype_name(value) == dtype
        if is_dtype or any(value is one or _is_equal(value, one) for one in allowed):
            continue
        choices = [repr(one) for one in allowed] + [dtype] * name.endswith("dtype")
        raise UnsupportedParameterError(
            f"{name}: got {value!r:.80}, allowed are {', '.join(choices)}.",
            hint="Graphs run as they were exported; leave it out." if is_dtype else None,
            param=name,
        )


def has_dtype(options: dict[str, Any]) -> bool:
    """Whether the options name a dtype for the networks, and do not leave it open."""
    given = [options.get("dtype"), options.get("torch_dtype")]
    return any(value is not None and not _is_equal(value, "auto") for value in given)


def dtype_name(value: Any) -> str:
    """ "float32" for torch.float32, numpy.float32 and "float32"."""
    return str(getattr(value, "__name__", value)).rpartition(".")[2]


def _is_equal(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)
