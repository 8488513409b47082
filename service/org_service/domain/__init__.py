"""What may happen to an organization: pure rules, no I/O."""
