"""The first run at another picture size."""
