"""Proof tools that share no code with the service's decisions: a serial oracle and a checker of its accounts."""
