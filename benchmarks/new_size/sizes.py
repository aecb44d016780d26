"""The two sizes, of the latents: 512x512 pixels, then 448x640."""

OLD = (64, 64)
NEW = (56, 80)
