"""The wire contract of the organization service."""
