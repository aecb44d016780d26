"""Which precision a pipeline computes in on this machine, and why."""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from .checks import refuse
from .errors import ConfigurationError

__all__ = ["PRECISIONS", "Choice", "choose_precision", "describe_precision"]

PRECISIONS = ("auto", "fp32", "bf16", "int8", "fp16")
_GPU = "cuda"
_SCALAR = "scalar"
_TILES = "amx_bf16"
_INT8_UNITS = ("amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16")


@dataclass(frozen=True)
class Choice:
    """A precision for this machine.

    Attributes:
        precision: "fp32", graphs as they were exported; "bf16" or "fp16", compiled ones; or "int8",
            compiled ones whose U-Net multiplies bytes where that costs little.
        reason: Why, for people.
        is_automatic: Nobody asked for it: something else will do, too.
        device: "cpu" or "cuda".
    """

    precision: str
    reason: str
    is_automatic: bool
    device: str = "cpu"

    @property
    def target(self) -> str | None:
        """What the graphs are compiled for; None where they run as exported."""
        return None if self.precision == "fp32" else f"{self.device}-{self.precision}"


def choose_precision(precision: str = "auto", device: str = "cpu") -> Choice:
    """What `precision` means here: "auto" is fp16 on a GPU, bf16 on a CPU with AMX, else fp32.

    Raises:
        ConfigurationError: No such precision; fp16 on a CPU, which computes nothing in it; int8 on
            a GPU; or bf16 or int8 without a unit of the CPU that is fast at it.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        choices = ", ".join(map(repr, PRECISIONS))
        refuse("precision", precision, f"in this version are {choices}", kind=ConfigurationError)
    if device not in ("auto", "cpu"):
        if precision == "int8":
            refuse(
                "precision",
                precision,
                "are 'fp32', 'bf16' and 'fp16' on a GPU",
                kind=ConfigurationError,
            )
        if precision == "auto":
            return Choice("fp16", "the device is a GPU", True, _GPU)
        return Choice(precision, "asked for", False, _GPU)
    if precision == "fp16":
        refuse(
            "precision",
            precision,
            "are 'fp32', 'bf16' and 'int8' on a CPU",
            kind=ConfigurationError,
        )
    unit = _core.active_matrix_unit()
    if precision == "auto":
        if unit == _TILES:
            return Choice("bf16", f"{unit} is there", True)
        return Choice("fp32", f"no AMX, the matrix unit is {unit}", True)
    if precision == "bf16" and unit == _SCALAR:
        refusal = _core.amx_refusal()
        raise ConfigurationError(
            f"precision: got 'bf16', which needs amx_bf16 or avx512_bf16; found on this machine: "
            f"{', '.join(_core.supported_matrix_units())}, in use: {unit}"
            f"{f' (amx_bf16: {refusal})' if refusal else ''}.",
            hint="precision='fp32' and 'auto' run on every CPU.",
            param="precision",
        )
    if precision == "int8" and (unit == _SCALAR or _core.int8_unit() == _SCALAR):
        found = [name for name in _core.cpu_features() if name in _INT8_UNITS]
        raise ConfigurationError(
            f"precision: got 'int8', which needs amx_int8 and amx_bf16, or avx512_vnni and "
            f"avx512_bf16; found on this machine: {', '.join(found) or 'none of them'}; in use for "
            f"bfloat16: {unit}.",
            hint="precision='fp32' and 'auto' run on every CPU.",
            param="precision",
        )
    return Choice(precision, "asked for", False)


def describe_precision() -> str:
    """What "auto" is on this machine and why, and what else may be asked for."""
    choice = choose_precision()
    auto = f"auto is {choice.precision} ({choice.reason})"
    other = "fp32" if choice.precision == "bf16" else "bf16"
    if _core.int8_unit() != _SCALAR:
        other += f" and int8 ({_core.int8_unit()})"
    may = f"{other} may be asked for"
    if choice.precision != "bf16" and _core.active_matrix_unit() == _SCALAR:
        may = "bf16 needs amx_bf16 or avx512_bf16"
    return f"{auto}; {may}; on a GPU auto is fp16, bf16 and fp32 may be asked for"
