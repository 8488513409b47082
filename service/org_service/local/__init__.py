"""What `orgs up` is besides the roles: each of them started and stopped by itself, and a socket to ask for that."""

from typing import Final

STAFF: Final = "local-staff"
"""Whom the token in `stack.env` names, and whom `orgs up` makes staff."""
