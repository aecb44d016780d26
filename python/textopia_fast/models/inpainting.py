"""The U-Net of an inpainting model, whose sample is cat(latents, mask, masked picture), parted.

Its three parts become inputs of their own, joined by one Concat inside of the graph: to the loop
the mask is then conditioning like any other, and the latents have the channels that they have.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["LATENTS", "MASK", "MASKED_PICTURE", "part_sample"]

LATENTS = "sample_latents"
MASK = "sample_mask"
MASKED_PICTURE = "sample_masked_picture"
_AXIS = 1


def part_sample(
    path: Path, graph: Path | bytes, sample: str, latent_channels: int
) -> tuple[bytes, dict[str, str]]:
    """A graph with LATENTS, MASK and MASKED_PICTURE instead of the input `sample`.

    Args:
        path: Where it comes from, with its weights.
        graph: The same, or what was made of it.
        sample: The input's name.
        latent_channels: The channels of LATENTS.

    Returns:
        The bytes of the graph, and the session config that tells where its weights lie.
    """
    import onnx

    if isinstance(graph, bytes):
        model = onnx.load_from_string(graph)
    else:
        model = onnx.load(str(graph), load_external_data=False)
    inputs = list(model.graph.input)
    (at,) = (i for i, value in enumerate(inputs) if value.name == sample)
    parts = []
    channels_of = {LATENTS: latent_channels, MASK: 1, MASKED_PICTURE: latent_channels}
    for name, channels in channels_of.items():
        part = onnx.ValueInfoProto()
        part.CopyFrom(inputs[at])
        part.name = name
        part.type.tensor_type.shape.dim[_AXIS].dim_value = channels
        parts.append(part)
    del model.graph.input[:]
    model.graph.input.extend([*inputs[:at], *parts, *inputs[at + 1 :]])
    join = onnx.helper.make_node("Concat", list(channels_of), [sample], axis=_AXIS)
    model.graph.node.insert(0, join)
    folder = {"session.model_external_initializers_file_folder_path": str(path.parent)}
    return model.SerializeToString(), folder
