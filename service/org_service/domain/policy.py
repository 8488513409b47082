"""What each role is denied: a declared policy, checked whole before anything is judged by it. Pure."""

import tomllib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from org_events.reference import Role

RESOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "Organization": ("read", "create", "update", "delete", "execute"),
    "Member": ("read", "create", "update", "delete"),
    "Partnership": ("read", "create", "update", "delete"),
    "PurchasePlanV2": ("read", "create", "update", "delete", "execute"),
    "Report": ("read", "create", "update", "delete", "execute"),
}
"""Every resource, with the actions that make sense on it; `execute` of an organization is to deactivate and reactivate.

The service itself judges `Organization`; the others are for the programs that show or hide what a user may do.
"""
ACTIONS: Final = tuple(f"{resource}:{action}" for resource, actions in RESOURCES.items() for action in actions)

_ROLES: Final = frozenset(role.value for role in Role)

READ: Final = "Organization:read"
CREATE: Final = "Organization:create"
UPDATE: Final = "Organization:update"
DELETE: Final = "Organization:delete"
EXECUTE: Final = "Organization:execute"


class PolicyError(ValueError):
    """A policy that can't be used; the message says what, where and what to do."""


class Policy(NamedTuple):
    """The denied actions of every role, in the order of `ACTIONS`."""

    denied: Mapping[Role, tuple[str, ...]]

    @property
    def hides(self) -> bool:
        """Whether some role may not read the organizations that it has to do with."""
        return any(READ in denied for denied in self.denied.values())


def read_policy(text: str) -> Policy:
    """Read a policy: TOML with a table `[roles.ROLE]` for each of the five roles, and in it the list `denied`.

    Raises:
        PolicyError: No TOML, a role is missing, or a name is unknown. Every mistake is named.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"the policy is not TOML: {error}") from error
    mistakes = [f"{name!r} is unknown; only [roles.…] is allowed" for name in document if name != "roles"]
    tables = document.get("roles")
    roles = cast("dict[str, Any]", tables) if isinstance(tables, dict) else {}
    known = ", ".join(Role)
    mistakes += [f"[roles.{name}]: unknown role; the roles are {known}" for name in roles if name not in _ROLES]
    mistakes += [
        f"[roles.{role}] is missing; write `denied = []` if nothing is denied" for role in Role if role not in roles
    ]
    denied = {role: _denied(role, roles[role], mistakes) for role in Role if role in roles}
    if mistakes:
        raise PolicyError("the policy is invalid: " + "; ".join(mistakes))
    return Policy(denied)


def _denied(role: Role, table: object, mistakes: list[str]) -> tuple[str, ...]:
    content = cast("dict[str, Any]", table) if isinstance(table, dict) else {}
    mistakes += [f"[roles.{role}] {name}: unknown; only `denied` is allowed" for name in content if name != "denied"]
    actions = content.get("denied")
    if not isinstance(actions, list):
        mistakes.append(f"[roles.{role}] needs `denied`, a list of Resource:action")
        return ()
    named = cast("list[Any]", actions)
    for action in named:
        if action not in ACTIONS:
            mistakes.append(f"[roles.{role}] {action!r} is not an action; the actions are {', '.join(ACTIONS)}")
    return tuple(action for action in ACTIONS if action in named)
