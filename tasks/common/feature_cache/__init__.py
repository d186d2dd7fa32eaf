"""Computed features, kept by image and fingerprint."""
