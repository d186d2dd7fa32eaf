"""Stage 5: the only stage that reads the test split."""
