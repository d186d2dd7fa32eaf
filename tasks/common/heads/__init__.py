"""Heads and the calibration of their outputs."""
