"""Graft, a transfer-learning pipeline for images; its code lies in flows/ and tasks/, which are linked from here."""
