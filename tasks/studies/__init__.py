"""Mathematics and plots of rank, compare and drift, which no stage uses."""
