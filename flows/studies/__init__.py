"""Rank, compare and drift: answers that no stage depends on."""
