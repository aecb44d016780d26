"""What a denoising loop costs beyond the network: a network that costs nothing, many steps."""
