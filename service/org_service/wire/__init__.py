"""Bytes to values and back, in both directions of the wire. Pure."""
