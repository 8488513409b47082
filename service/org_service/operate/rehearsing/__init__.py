"""Commands decided again where it changes nothing: `orgs replay commands`."""
