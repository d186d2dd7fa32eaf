"""The champion at work: predictions of files, the model server, exported models."""
