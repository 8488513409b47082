"""HTTP/1.1 as every role serves it: the edge's API, and each role's health pages."""
