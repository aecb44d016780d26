"""Which precision a pipeline computes in on this machine, and why."""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from .checks import refuse
from .errors import ConfigurationError

__all__ = ["PRECISIONS", "Choice", "choose_precision", "describe_precision"]

PRECISIONS = ("auto", "fp32", "bf16", "int8")
_SCALAR = "scalar"
_TILES = "amx_bf16"
_INT8_UNITS = ("amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16")


@dataclass(frozen=True)
class Choice:
    """A precision for this machine.

    Attributes:
        precision: "fp32", graphs as they were exported, "bf16", compiled ones, or "int8", compiled
            ones whose U-Net multiplies bytes where that costs little.
        reason: Why, for people.
        is_automatic: Nobody asked for it: something else will do, too.
    """

    precision: str
    reason: str
    is_automatic: bool


def choose_precision(precision: str = "auto", device: str = "cpu") -> Choice:
    """What `precision` means here: "auto" is bf16 where AMX multiplies, else fp32.

    A GPU runs the graphs as exported, in fp32.

    Raises:
        ConfigurationError: No such precision, or bf16 or int8 without a unit of the CPU that is
            fast at it.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        choices = ", ".join(map(repr, PRECISIONS))
        refuse("precision", precision, f"in this version are {choices}", kind=ConfigurationError)
    if device not in ("auto", "cpu"):
        if precision in ("bf16", "int8"):
            refuse("precision", precision, "is fp32 on a GPU", kind=ConfigurationError)
        return Choice("fp32", "the device is a GPU", precision == "auto")
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
    others = "fp32" if choice.precision == "bf16" else "bf16"
    if _core.active_matrix_unit() == _SCALAR:
        return f"auto is fp32 ({choice.reason}); bf16 and int8 need AMX or AVX-512"
    if _core.int8_unit() != _SCALAR:
        others += f" and int8 ({_core.int8_unit()})"
    return f"auto is {choice.precision} ({choice.reason}); {others} may be asked for"
