"""The proof that tables and topics tell the same as of one position (`orgs verify`), and what mends them."""
