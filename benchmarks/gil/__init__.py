"""Whether other Python threads go on while the native loop runs."""
