"""The Prefect flow `retrain` and its steps."""
