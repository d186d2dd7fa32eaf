"""Which images to label next; no stage uses it."""
