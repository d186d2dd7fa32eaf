"""Where a model comes from: trace, why and rebuild."""
