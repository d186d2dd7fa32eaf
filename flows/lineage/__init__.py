"""The origin of a model: trace, why and rebuild."""
