"""The feature cache, the doctor and the summary."""
