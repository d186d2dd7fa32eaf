"""Metrics, significance, calibration and selective prediction."""
