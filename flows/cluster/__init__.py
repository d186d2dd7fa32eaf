"""Work on the nodes of a Ray cluster: jobs, the exchange with them, and images fetched from the DVC remote."""
