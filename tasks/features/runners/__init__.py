"""Who computes the features that the cache lacks: this process, or a runner that `flows/` brings."""
