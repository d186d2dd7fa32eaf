"""Graft's speed and memory beside others'. Nothing in tasks/ or flows/ imports this."""
