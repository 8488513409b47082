"""The operators' page at /console: what `orgs` shows and plans, for a browser (decision 0048)."""
