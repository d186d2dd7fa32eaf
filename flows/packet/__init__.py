"""The audit packet of a registered version: documents in published forms, evidence, a signature, and their check."""
