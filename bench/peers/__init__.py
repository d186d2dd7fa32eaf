"""What others run. Each module is a program of its own that writes features and a file of measurements."""
