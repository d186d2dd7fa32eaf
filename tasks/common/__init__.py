"""The nouns that several stages share."""
