"""What graphs can be compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..checks import refuse
from ..errors import ConfigurationError

__all__ = ["COMPILER_VERSION", "TARGETS", "Target", "find_target"]

COMPILER_VERSION = 2
"""Part of the key of an engine: it changes with anything that changes what is written."""


@dataclass(frozen=True)
class Target:
    """A kind of machine and the precision of its engines.

    Attributes:
        name: Stands in keys and messages.
        dtype: Element type of activations: "float32", "bfloat16" or "float16".
        weight_format: Of fused operators: "plain" or "bf16_panels".
        fuses: Whether the fused operators of the domain `ai.textopia` run there.
        device: "cpu" or "cuda".
        shares_prefix: Whether the halves of guidance share what comes before the prompt. Repeating
            it takes row numbers out of the sizes, which a captured CUDA graph cannot hold.
        cuda_options: What replaces the usual options of the CUDA provider. Those make one operation
            of a Conv between Transposes; of bfloat16 there is none, and the provider refuses.
        beside: The target whose engine has all graphs; an engine of this one adds only another
            body of the U-Net, with the layers in int8 that `quantising.py` chooses.
    """

    name: str
    dtype: str
    weight_format: str
    fuses: bool = True
    device: str = "cpu"
    shares_prefix: bool = True
    cuda_options: tuple[tuple[str, str], ...] = ()
    beside: str | None = None


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target("cpu-bf16", "bfloat16", "bf16_panels"),
            Target("cpu-int8", "bfloat16", "bf16_panels", beside="cpu-bf16"),
            Target("cpu-fp32", "float32", "plain", fuses=False),
            Target("cuda-fp16", "float16", "plain", device="cuda", shares_prefix=False),
            Target(
                "cuda-bf16",
                "bfloat16",
                "plain",
                device="cuda",
                shares_prefix=False,
                cuda_options=(("prefer_nhwc", "0"),),
            ),
            # Every operator in float32 with plain weights: what tests compare with the export.
            Target("reference", "float32", "plain"),
        )
    }
)


def find_target(name: str) -> Target:
    """The target of this name. Raises ConfigurationError."""
    if not isinstance(name, str) or name not in TARGETS:
        refuse("target", name, f"are {', '.join(TARGETS)}", kind=ConfigurationError)
    return TARGETS[name]
