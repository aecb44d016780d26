"""Our fused operators: bfloat16, weights packed before, bias and (for linear layers) residual."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from benchmarks.matrix.layers import Layer, Prepared
from textopia_fast import _core, _ort

OPERATORS = {
    "conv": "Conv",
    "upsample": "Conv",
    "linear": "Linear",
    "geglu": "LinearGeglu",
    "attention": "Attention",
}


def bits(values: np.ndarray) -> np.ndarray:
    return _core.float_to_bfloat16(_core.supported_isas()[0], values)


def prepare(
    layer: Layer, data: dict[str, np.ndarray], threads: int, int8: bool = False
) -> Prepared:
    feeds, constants, attributes = {}, {}, {}
    if layer.kind == "attention":
        feeds = {name: bits(data[name]) for name in "qkv"}
        attributes = {"heads": layer.heads}
    else:
        weight = data["weight"]
        feeds = {"x": bits(data["x"])}
        constants = {
            "bias": helper.make_tensor("bias", TensorProto.FLOAT, data["bias"].shape, data["bias"])
        }
        attributes = {"weight_format": "int8_panels" if int8 else "bf16_panels"}
        if layer.kind in ("conv", "upsample"):
            is_enlarged = layer.kind == "upsample"
            feeds["x"] = np.ascontiguousarray(feeds["x"].transpose(0, 2, 3, 1))
            weight_last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
            panels = _core.pack_conv(weight_last, upsample=is_enlarged, int8=int8)
            attributes |= {"in_channels": weight.shape[1], "out_channels": weight.shape[0]}
            attributes |= {"upsample": 1} if is_enlarged else {"stride": layer.sizes[3]}
        else:
            is_gated = layer.kind == "geglu"
            panels = _core.pack_linear(weight, geglu=is_gated, int8=int8)
            rows = weight.shape[0] // (2 if is_gated else 1)
            attributes |= {"in_features": weight.shape[1], "out_features": rows}
            if not is_gated:
                feeds["residual"] = bits(data["residual"])
        shape = [panels.size]
        element = TensorProto.UINT8 if int8 else TensorProto.UINT16
        packed = helper.make_tensor("w", element, shape, panels.tobytes(), raw=True)
        constants = {"w": packed, **constants}
    first, *rest = feeds
    node = helper.make_node(
        OPERATORS[layer.kind],
        [first, *constants, *rest],
        ["y"],
        domain="ai.textopia",
        **attributes,
    )
    bfloat16 = TensorProto.BFLOAT16
    inputs = [helper.make_tensor_value_info(k, bfloat16, v.shape) for k, v in feeds.items()]
    output = helper.make_tensor_value_info("y", bfloat16, [None] * feeds[first].ndim)
    graph = helper.make_graph([node], "layer", inputs, [output], list(constants.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.textopia", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = _ort.create_session(model.SerializeToString(), label=layer.name, threads=threads)

    def result() -> np.ndarray:
        y = _core.bfloat16_to_float(_core.supported_isas()[0], session.run(feeds)["y"])
        return y.transpose(0, 3, 1, 2) if layer.kind in ("conv", "upsample") else y

    return Prepared(lambda count: session.run_repeatedly(feeds, count), result)
