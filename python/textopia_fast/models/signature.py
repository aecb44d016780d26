"""The border of a graph: its inputs and outputs, and which of them a pipeline needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..checks import shown
from ..errors import UnsupportedModelError

__all__ = [
    "INTEGER",
    "ONNX_DTYPES",
    "REAL",
    "TIME",
    "GraphSignature",
    "Ports",
    "TensorSpec",
    "classify",
]

ONNX_DTYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "float32",
        2: "uint8",
        3: "int8",
        4: "uint16",
        5: "int16",
        6: "int32",
        7: "int64",
        8: "string",
        9: "bool",
        10: "float16",
        11: "float64",
        12: "uint32",
        13: "uint64",
        16: "bfloat16",
    }
)
"""ONNX element types by NumPy's names; every other type is "onnx type <number>"."""

REAL = ("float32", "float16")
INTEGER = ("int64", "int32")
TIME = ("float32", "float16", "float64", "int64", "int32")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` has an int, the name of a free size, or None for each axis."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} [{sizes}]"


@dataclass(frozen=True)
class GraphSignature:
    """Inputs and outputs of a graph, in the graph's order. Bind by name: orders differ."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Ports:
    """A graph's tensors by the names that a pipeline knows them by.

    Attributes:
        role: "unet", "text_encoder", "vae_decoder" or "vae_encoder".
        inputs: Inputs by role name; the names are those of the graph too.
        outputs: Outputs by role name. A sole output may have another name in the graph.
        timestep_form: Of a U-Net: "scalar" (rank 0), "steps" (one value, shape [1]) or "batch"
            (one value for each row of `sample`); otherwise None.
    """

    role: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    timestep_form: str | None = None


@dataclass(frozen=True)
class _Want:
    dtypes: tuple[str, ...]
    ranks: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class _Role:
    inputs: Mapping[str, _Want]
    outputs: Mapping[str, _Want]
    any_of: tuple[str, ...] = ()
    """At least one of these outputs must be there."""


_ROLES: Mapping[str, _Role] = MappingProxyType(
    {
        "unet": _Role(
            inputs={
                "sample": _Want(REAL, (4,)),
                "timestep": _Want(TIME, (0, 1)),
                "encoder_hidden_states": _Want(REAL, (3,)),
                "timestep_cond": _Want(REAL, (2,), optional=True),
            },
            outputs={"out_sample": _Want(REAL, (4,))},
        ),
        "text_encoder": _Role(
            inputs={"input_ids": _Want(INTEGER, (2,))},
            outputs={
                "last_hidden_state": _Want(REAL, (3,)),
                "pooler_output": _Want(REAL, (2,), optional=True),
            },
        ),
        "vae_decoder": _Role(
            inputs={"latent_sample": _Want(REAL, (4,))}, outputs={"sample": _Want(REAL, (4,))}
        ),
        "vae_encoder": _Role(
            inputs={"sample": _Want(REAL, (4,))},
            outputs={
                "latent_parameters": _Want(REAL, (4,), optional=True),
                "latent_sample": _Want(REAL, (4,), optional=True),
            },
            any_of=("latent_parameters", "latent_sample"),
        ),
    }
)


def classify(signature: GraphSignature, role: str, label: str | None = None) -> Ports:
    """Maps the tensors of a graph to what a pipeline feeds and reads.

    Args:
        signature: The graph's border.
        role: "unet", "text_encoder", "vae_decoder" or "vae_encoder".
        label: Name of the file in messages.

    Raises:
        UnsupportedModelError: An input that nothing would feed, a missing tensor, or one of a
            dtype or rank that this role cannot have. All of them are in `details["problems"]`.
    """
    where = label or f"{role}/model.onnx"
    rules = _ROLES[role]
    inputs, bad_inputs = _match(signature.inputs, rules.inputs, "input")
    outputs, bad_outputs = _match(signature.outputs, rules.outputs, "output")
    problems = bad_inputs + bad_outputs
    extra = [spec.name for spec in signature.inputs if spec.name not in rules.inputs]
    if extra:
        known = ", ".join(rules.inputs)
        names = ", ".join(shown(name) for name in extra[:8])
        problems.append(f"has unknown inputs {names}; a {role} may have {known}")
    if rules.any_of and not any(name in outputs for name in rules.any_of):
        problems.append(f"has no output {' or '.join(shown(n) for n in rules.any_of)}")
    if problems:
        raise UnsupportedModelError(
            f"{where}: {'; '.join(problems)}.", component=role, path=where, problems=problems
        )
    return Ports(
        role,
        MappingProxyType(inputs),
        MappingProxyType(outputs),
        _timestep_form(inputs) if role == "unet" else None,
    )


def _match(
    found: tuple[TensorSpec, ...], wanted: Mapping[str, _Want], kind: str
) -> tuple[dict[str, TensorSpec], list[str]]:
    by_name = {spec.name: spec for spec in found}
    required = [name for name, want in wanted.items() if not want.optional]
    # A graph with a single output has no second candidate, whatever its name.
    if kind == "output" and len(required) == 1 == len(found) and required[0] not in by_name:
        by_name[required[0]] = found[0]
    matched: dict[str, TensorSpec] = {}
    problems: list[str] = []
    for name, want in wanted.items():
        spec = by_name.get(name)
        if spec is None:
            if not want.optional:
                names = ", ".join(shown(s.name) for s in found[:8]) or "none"
                problems.append(f"has no {kind} {name!r} ({kind}s: {names})")
            continue
        if spec.dtype not in want.dtypes:
            allowed = ", ".join(want.dtypes)
            problems.append(f"{kind} {name!r} is {spec.dtype}, allowed are {allowed}")
        if len(spec.shape) not in want.ranks:
            ranks = " or ".join(str(rank) for rank in want.ranks)
            problems.append(f"{kind} {name!r} has rank {len(spec.shape)}, allowed is {ranks}")
        matched[name] = spec
    return matched, problems


def _timestep_form(inputs: Mapping[str, TensorSpec]) -> str:
    shape = inputs["timestep"].shape
    if not shape:
        return "scalar"
    size, rows = shape[0], inputs["sample"].shape[0]
    if size == 1:
        return "steps"
    if isinstance(size, int):
        return "batch"
    # Exporters name the free size; the same name as the batch's means one value for each row.
    same = size is not None and (size == rows or size.startswith("batch"))
    return "batch" if same else "steps"
