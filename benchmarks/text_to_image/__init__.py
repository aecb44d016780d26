"""A picture from a text: loading, making, and the first one of a fresh process."""
