"""Whole sampling loops: a trivial network for the loop's own cost, small ones end to end."""
