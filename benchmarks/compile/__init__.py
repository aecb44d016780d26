"""The first compilation of a model."""
