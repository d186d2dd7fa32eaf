"""Stage 2: images through the frozen backbone."""
