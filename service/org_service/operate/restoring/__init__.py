"""The database written again from the topics: `orgs rebuild` and `orgs recover`."""
