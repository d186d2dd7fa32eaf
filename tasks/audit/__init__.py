"""Stage 4: problems in the data, found by the features."""
