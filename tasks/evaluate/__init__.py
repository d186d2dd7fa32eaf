"""Stage 6: the only stage that judges by the test split."""
