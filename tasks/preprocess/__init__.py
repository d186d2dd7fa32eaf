"""Stage 1: every file checked, every image given its split."""
