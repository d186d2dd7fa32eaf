"""Feature maps of a frozen network: how they are made, kept and read."""
