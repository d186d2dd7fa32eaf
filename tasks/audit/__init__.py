"""Stage 4: what the features say about the data."""
