"""Stage 7: the chosen candidate as a package that anyone can load."""
