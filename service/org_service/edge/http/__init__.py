"""The API over HTTP: requests in, JSON and problems out."""
