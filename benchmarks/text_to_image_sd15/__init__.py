"""A picture of Stable Diffusion 1.5 at its true size: whole pipelines against each other."""
