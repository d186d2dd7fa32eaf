"""The label page, and what it asks for."""
