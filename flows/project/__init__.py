"""A new project: git, DVC and the files that a user edits."""
