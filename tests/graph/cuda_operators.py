"""What ONNX Runtime's CUDA provider has kernels for, as far as compiled graphs need it.

From docs/OperatorKernels.md of microsoft/onnxruntime at 001d12d2623f, domain ai.onnx; that 1.31.1
has bfloat16 in Conv, and not in Resize, is also seen in the names of its library's types. A kernel
serves nodes whose operator was defined last in a set of the range; an open range ends with its
first set, as the registry compares versions exactly there.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

ALL = "bool float16 bfloat16 float double int32 int64"
FLOATS, WIDE = "float16 bfloat16 float double", "float16 float double"
NUMBERS = f"{FLOATS} int32 int64"
COMPARED = f"{WIDE} int32 int64"

# Operator: (first set, last set, types of the first input).
KERNELS: dict[str, tuple[tuple[int, int, str], ...]] = {
    "Add": ((13, 13, NUMBERS), (14, 14, NUMBERS)),
    "ArgMax": ((13, 13, WIDE),),
    "Cast": ((13, 18, ALL), (19, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Concat": ((13, 13, ALL),),
    "Conv": ((11, 21, WIDE), (22, 22, FLOATS)),
    "Cos": ((7, 7, WIDE),),
    "Div": ((13, 13, NUMBERS), (14, 14, NUMBERS)),
    "Einsum": ((12, 12, WIDE),),
    "Equal": ((13, 13, f"bool {COMPARED}"),),
    "Erf": ((13, 13, FLOATS),),
    "Expand": ((13, 13, ALL),),
    "Flatten": ((13, 13, ALL),),
    "Gather": ((13, 13, ALL),),
    "Identity": ((13, 13, ALL), (14, 18, ALL), (19, 19, ALL)),
    "LessOrEqual": ((12, 15, COMPARED), (16, 16, COMPARED)),
    "MatMul": ((13, 13, FLOATS),),
    "Mul": ((13, 13, NUMBERS), (14, 14, NUMBERS)),
    "Range": ((11, 11, "float double int32 int64"),),
    "ReduceMean": ((1, 17, f"{WIDE} int32"), (18, 18, f"{WIDE} int32")),
    "Reshape": ((13, 13, ALL), (14, 18, ALL), (19, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Resize": ((13, 17, WIDE), (18, 18, WIDE), (19, 19, WIDE)),
    "Shape": ((13, 14, ALL), (15, 18, ALL), (19, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Sigmoid": ((13, 13, FLOATS),),
    "Sin": ((7, 7, WIDE),),
    "Slice": ((13, 13, ALL),),
    "Softmax": ((13, 13, FLOATS),),
    "Split": ((13, 17, ALL), (18, 18, ALL)),
    "Sqrt": ((13, 13, FLOATS),),
    "Squeeze": ((13, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Sub": ((13, 13, NUMBERS), (14, 14, NUMBERS)),
    "Transpose": ((13, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Unsqueeze": ((13, 20, ALL), (21, 22, ALL), (23, 23, ALL)),
    "Where": ((9, 15, "bool"), (16, 16, "bool")),
}
OURS = ("Attention", "Geglu", "GroupNorm", "LayerNorm")


def unsupported(model: ir.Model) -> list[str]:
    """The nodes of a graph that the CUDA provider and our operators have no kernel for."""
    version = model.graph.opset_imports[""]
    missing = []
    for node in model.graph:
        if node.domain == "ai.textopia" and node.op_type in OURS:
            continue
        dtype = node.inputs[0].dtype.name.lower() if node.inputs and node.inputs[0].dtype else "?"
        name = f"{node.op_type}-{version} {dtype}"
        if node.domain or node.op_type not in KERNELS:
            missing.append(f"{node.domain} {name}")
            continue
        defined = onnx.defs.get_schema(node.op_type, version, "").since_version
        ranges = [row for row in KERNELS[node.op_type] if row[0] <= defined <= row[1]]
        if not ranges or dtype not in ranges[0][2].split():
            missing.append(name)
    return missing
