"""Errors, files, paths, parameters, progress and records."""
