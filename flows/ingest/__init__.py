"""How images come into a project."""
