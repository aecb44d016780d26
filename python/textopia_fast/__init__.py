"""textopia_fast: samples from Stable-Diffusion-type models with a native denoising loop."""
