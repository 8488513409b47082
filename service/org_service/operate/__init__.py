"""What operators do, as plain functions."""
