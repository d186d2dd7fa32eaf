"""MLflow: the only writer of runs."""
