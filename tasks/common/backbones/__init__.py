"""Pre-trained networks: where their weights come from and how they become an inference graph."""
