"""From a fresh process to a model that is ready, its first picture, and the memory of both."""
