"""Many publishers' commands at random, the same for the same seed.

Ids and names are few for the number of commands, so that names collide, versions go stale and organizations come back.
A third of what is sent after the first moments is rejected, one way or another; some is sent twice.
"""

import random
from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from tests.support.sending import (
    SAME,
    UNANSWERABLE_BODY,
    UNREADABLE,
    Sending,
    acting_as,
    binary,
    traced,
    unreadable,
    with_id,
)

COUNTRIES = ("NO", "SE", "DE", "US", "XX")
"""The last one is none."""

WEIGHTS = {
    "rename": 28, "move": 24, "org.delete": 6, "org.restore": 6, "org.deactivate": 4, "org.reactivate": 6, "create": 6,
    "stale": 8, "wrong": 2, "duplicate": 6, "reuse": 2, "unanswerable": 1, "unreadable": 1,
}  # fmt: skip
"""How often each is sent, to an organization that was created before."""

ACTORS = ("user-1", "user-2", 'Zo\u00eb "the boss" M\u00fcller', None)
"""On whose behalf; the third one is awkward in JSON and in headers, the last one is nobody."""

TRACED = 0.3
"""How many commands are a step of a trace."""

RECENT_MAX = 2_000
"""Of these commands one is sent again, now and then."""


class RandomCommands:
    """Makes commands for a number of organizations; each organization is created first."""

    def __init__(self, seed: int, organizations: int, *, without: Collection[str] = ()) -> None:
        """Make one.

        Args:
            seed: Of all that is random.
            organizations: How many.
            without: Of `WEIGHTS`, what is not sent.
        """
        self.random = random.Random(seed)
        self._weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in without}
        self._org_ids = [self._uuid() for _ in range(organizations)]
        self._created: set[str] = set()
        self._recent: list[Sending] = []

    def commands(self, number: int) -> Iterator[Sending]:
        """The next so many commands."""
        for _ in range(number):
            yield self._next()

    def _next(self) -> Sending:
        org_id = self.random.choice(self._org_ids)
        kind = (
            self.random.choices(list(self._weights), list(self._weights.values()))[0]
            if org_id in self._created
            else "create"
        )
        if kind == "create":
            self._created.add(org_id)
        if kind in ("duplicate", "reuse") and self._recent:
            earlier = self.random.choice(self._recent)
            if kind == "duplicate":
                return self.random.choice(SAME)(earlier)
            assert earlier.command_id is not None
            return with_id(self._fresh("rename", org_id), earlier.command_id)
        sending = self._fresh(kind, org_id)
        if kind == "unanswerable":
            return self.random.choice(UNANSWERABLE_BODY)(sending)
        if kind == "unreadable":
            return unreadable(sending, self.random.randrange(len(UNREADABLE)))
        if len(self._recent) >= RECENT_MAX:
            self._recent[self.random.randrange(RECENT_MAX)] = sending
        else:
            self._recent.append(sending)
        return sending

    def _fresh(self, kind: str, org_id: str) -> Sending:
        body: dict[str, Any] = {}
        command_type = kind if kind.startswith("org.") else "org.update"
        if kind == "create":
            command_type = "org.create"
            body = {"name": self._name(), "domain": self._domain()}
        elif kind == "move":
            body = {"primary_address": self._address(), "domain": self._domain()}
        elif kind == "stale":
            command_type = self.random.choice(("org.update", "org.delete", "org.restore", "org.deactivate"))
            body = self.random.choice(
                (
                    {"expected_version": self.random.randint(1, 12)},
                    {"if_current": {"name": self._name()}},
                    {"if_current": {"domain": self._domain()}},
                )
            )
            body |= {"name": self._name()}
        elif kind == "wrong":
            body = {"name": self.random.choice(("", "a\u0007b", "x" * 300)), "domain": "no domain"}
        elif kind not in ("org.delete", "org.restore", "org.deactivate", "org.reactivate"):
            body = {"name": self._name()}
        sending = binary(self._uuid(), command_type, org_id, **body)
        actor = self.random.choice(ACTORS)
        if actor is not None:
            sending = acting_as(sending, actor)
        if self.random.random() < TRACED:
            trace = f"{self.random.getrandbits(128):032x}-{self.random.getrandbits(64):016x}"
            sending = traced(sending, f"00-{trace}-01")
        return sending

    def _name(self) -> str:
        number = self.random.randrange(len(self._org_ids) * 2)
        return self.random.choice((f"Firm {number}", f"FIRM {number} ", f"Stra\u00dfe {number}", f"STRASSE {number}"))

    def _domain(self) -> str | None:
        return self.random.choice((None, f"firm-{self.random.randrange(1000)}.example", "Firm.Example"))

    def _address(self) -> dict[str, Any] | None:
        if self.random.random() < 0.1:
            return None
        country = self.random.choices(COUNTRIES, (10, 10, 10, 10, 1))[0]
        return {"line1": f"{self.random.randrange(500)} Way", "city": "Oslo", "country": country}

    def _uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))
