"""A network with the signature of Stable Diffusion's U-Net that costs next to nothing.

What a loop spends around such a network is the loop's own cost. The output depends on all three
inputs, so a loop that binds the wrong one gives a wrong result:
out = 0.5 * sample + mean(encoder_hidden_states) + 0.0001 * timestep.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS = 77


def cheap_unet(width: int = 768, repeat: int = 0) -> bytes:
    """The graph: sample [batch, 4, h, w], timestep [], encoder_hidden_states [batch, 77, width].

    repeat: so many slow passes over the sample, to make runs last longer.
    """
    constants = {
        "ones": np.array([-1, 1, 1, 1], np.int64),
        "half": np.float32(0.5),
        "slope": np.float32(1e-4),
    }
    nodes = [
        helper.make_node("ReduceMean", ["encoder_hidden_states"], ["mean"], axes=[1, 2]),
        helper.make_node("Reshape", ["mean", "ones"], ["bias"]),
        helper.make_node("Mul", ["timestep", "slope"], ["time"]),
        helper.make_node("Add", ["bias", "time"], ["shift"]),
    ]
    source = "sample"
    for i in range(repeat):
        nodes.append(helper.make_node("Tanh", [source], [f"tanh{i}"]))
        nodes.append(helper.make_node("Erf", [f"tanh{i}"], [f"erf{i}"]))
        source = f"erf{i}"
    nodes += [
        helper.make_node("Mul", [source, "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["out_sample"]),
    ]
    latents = ["batch", 4, "height", "width"]
    text = ["batch", TOKENS, width]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "cheap_unet",
            [
                helper.make_tensor_value_info("sample", TensorProto.FLOAT, latents),
                helper.make_tensor_value_info("timestep", TensorProto.FLOAT, []),
                helper.make_tensor_value_info("encoder_hidden_states", TensorProto.FLOAT, text),
            ],
            [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, latents)],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()
