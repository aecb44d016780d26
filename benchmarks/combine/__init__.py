"""The fused update of the loop against a copy of the same bytes."""
