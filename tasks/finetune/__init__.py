"""Stage 5: all layers trained, if that can pay."""
