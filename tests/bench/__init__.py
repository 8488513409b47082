"""How fast the service is, measured on real servers against what a plain handler does: `python -m tests.bench`."""
