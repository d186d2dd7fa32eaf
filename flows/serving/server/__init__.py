"""The model server: HTTP in front of a packaged model, with limits, a key, metrics, and a page to drop pictures on."""
