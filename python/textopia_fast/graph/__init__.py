"""The graph compiler."""
