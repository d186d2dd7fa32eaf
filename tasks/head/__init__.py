"""Stage 3: a linear classifier on the frozen features."""
