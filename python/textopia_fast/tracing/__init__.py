"""From a sampler's function to a program: symbols, the recording of a run on them, lowering, and
what a program means (`reference`). The registry is here because a sampler is traced by name."""
