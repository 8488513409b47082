"""Logs and metrics: one place for their set-up and for every name."""
