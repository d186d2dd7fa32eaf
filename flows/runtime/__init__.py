"""Parameters, locations, processes and local servers."""
