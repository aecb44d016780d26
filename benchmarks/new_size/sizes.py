"""Sizes of the latents: 512x512 pixels, then 448x640 and others."""

OLD = (64, 64)
NEW = ((56, 80), (48, 64), (72, 56))
