"""The tasks on models of true size, in the order of a whole session, and how long each takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A task with the option that names its model; minutes on two quiet cores of an AMD EPYC."""

    task: str
    model: str
    minutes: float


PLAN = (
    Item("compile", "model", 1.0),
    Item("unet_step", "model", 5.0),
    Item("vae_decode", "model", 1.8),
    Item("text_encoder", "model", 0.7),
    Item("engine_load", "model", 1.5),
    Item("text_to_image_sd15", "model", 6.5),
    Item("new_size", "model", 1.7),
    Item("processes", "model", 2.0),
    Item("unet_step", "model_xl", 4.0),
)
