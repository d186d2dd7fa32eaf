"""Decoding and preprocessing images."""
