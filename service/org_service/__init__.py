"""The organization service."""
