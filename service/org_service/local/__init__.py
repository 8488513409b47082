"""What `orgs up` is besides the roles: each of them started and stopped by itself, and a socket to ask for that."""
