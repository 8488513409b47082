"""Records become a committed plan, whoever brings them."""
