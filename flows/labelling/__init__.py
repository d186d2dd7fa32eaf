"""The label loop: images without labels, which to ask about next, and the answers."""
