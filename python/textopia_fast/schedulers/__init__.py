"""diffusers' scheduler classes and their scheduler_config.json, read as plans for our samplers."""
