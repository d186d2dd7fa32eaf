"""The task, the manifest and the feature set."""
