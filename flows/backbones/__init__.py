"""Facts about pretrained networks, and what they recognise in images."""
