"""What the tasks on Stable Diffusion 1.5 at its true size share."""
