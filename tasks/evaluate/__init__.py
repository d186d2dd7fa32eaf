"""Stage 6: metrics and report on the test split."""
