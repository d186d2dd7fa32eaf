"""Stage 4: all layers trained, if that can pay."""
