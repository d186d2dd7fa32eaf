"""What git and DVC know of a project."""
