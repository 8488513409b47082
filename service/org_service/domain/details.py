"""What a rejection says to people: the `detail` of each problem of a command. The edge shows the same texts."""

from typing import Final

from org_events.reference import Role

NOT_FOUND: Final = "There is no organization with this id."
"""Also for one that the actor can't see: nobody may learn which."""
ALREADY_EXISTS: Final = "An organization with this id exists, or existed; choose another id."
NAME_TAKEN: Final = "Another organization has this name; choose another."
NAME_TAKEN_MEANWHILE: Final = "Another organization has taken the name; rename that one first."
DEACTIVATED: Final = "A deactivated organization can only be reactivated or deleted."
STILL_PARTNER: Final = "It still serves other organizations as their partner; end the partnerships first."
PARKED: Final = "The service could not decide the command; it is kept for an operator."
DISCARDED: Final = "The service could not decide the command, and an operator discarded it."
ERASED: Final = "The organization was erased for good: nothing of it is left that could be restored."
FORGOTTEN: Final = "The organization was erased since, and what this outcome said of it with it."
"""In place of the detail of an outcome that was recorded before."""
LOST: Final = (
    "The command changed nothing. How it was decided is not known any more: the database was lost, and written from "
    "the topics after this outcome had expired."
)
UNVERIFIED: Final = (
    "The command was parked before its token could be verified, and no token is kept; send it again under another id."
)


def replaced_by(command_id: str) -> str:
    """An operator discarded the command, and sent another one for it."""
    return f"{DISCARDED} The command {command_id} replaces it."


def denied(role: Role | str | None, action: str) -> str:
    """The role may not do this."""
    return f"The role {role} is denied {action}."


def wrong_fields(count: int, command_type: str) -> str:
    """So many fields are wrong."""
    return f"{count} field(s) of {command_type} are invalid; see errors."


def other_version(expected: int, version: int) -> str:
    """The organization has another version than the command expects."""
    return f"expected_version is {expected}, the organization has version {version}."


def queue_full(waiting: int) -> str:
    """So many commands wait behind one that is parked."""
    return f"{waiting} commands of this organization are already waiting for an operator; try again later."
