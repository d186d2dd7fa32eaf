"""git and DVC: hashes, caches, remotes and commits of a project."""
