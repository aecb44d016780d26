"""Options of ONNX Runtime's CUDA provider: one table, with the reason for each."""

from __future__ import annotations

from collections.abc import Mapping

from .checks import refuse
from .errors import ConfigurationError

__all__ = ["provider_options"]

_OPTIONS = {
    # float32 graphs compute in float32: a sample is compared with the CPU's to 1e-4. Graphs in 16
    # bits do not depend on it.
    "use_tf32": "0",
    # The same algorithm in every process, so that a seed gives the same picture, and no search of
    # seconds at the first run of a size. Candidate for measurements: EXHAUSTIVE.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Algorithms may take the workspace that they ask for.
    "cudnn_conv_use_max_workspace": "1",
    # Memory grows by what is needed: sizes of images differ, and powers of two would waste half.
    "arena_extend_strategy": "kSameAsRequested",
}
# Turns Transpose-Conv-Transpose, as the compiler writes it, into one convolution over NHWC. Of a
# graph as exported it makes more transpositions than it takes away.
_COMPILED = {"prefer_nhwc": "1"}

# These are set by the core: where the session runs, and whether its runs are captured.
_OWNED = ("device_id", "user_compute_stream", "has_user_compute_stream", "enable_cuda_graph")


def provider_options(
    *, is_compiled: bool = False, changes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What a session on a GPU is made with.

    Args:
        is_compiled: The graph was written by our compiler.
        changes: Replaces options of the table and adds others, for measurements.

    Raises:
        ConfigurationError: `changes` holds what the core decides, or something else than text.
    """
    changes = dict(changes or {})
    for name, value in changes.items():
        if name in _OWNED:
            refuse(
                "cuda_options",
                name,
                f"are options other than {', '.join(_OWNED)}",
                kind=ConfigurationError,
            )
        if not isinstance(name, str) or not isinstance(value, str):
            refuse("cuda_options", {name: value}, "are strings", kind=ConfigurationError)
    return {**_OPTIONS, **(_COMPILED if is_compiled else {}), **changes}
