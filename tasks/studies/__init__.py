"""The mathematics of rank, compare and drift, which no stage uses."""
