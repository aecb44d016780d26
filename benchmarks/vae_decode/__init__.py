"""Latents to a picture of 512x512."""
