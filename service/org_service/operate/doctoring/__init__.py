"""`orgs doctor`: the guarantees against the live settings that they stand on."""
