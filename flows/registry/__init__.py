"""Versions of the registered model, its aliases, and the ledger of decisions."""
