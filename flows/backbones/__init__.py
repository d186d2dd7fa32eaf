"""What is known of pretrained networks, and what they see."""
