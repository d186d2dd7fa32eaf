"""HTML pages and contact sheets."""
