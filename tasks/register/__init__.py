"""Stage 7: the chosen candidate as a model that others can load."""
