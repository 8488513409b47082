"""Records that nobody should send: commands spoiled, memberships that must not be believed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.support.partitioner import partition_of
from tests.support.sending import UNANSWERABLE_BODY, UNREADABLE, Sending, structured, unreadable

DEPTH = 10_000
HEADER_BYTES = 64 * 1024
BOMB_BYTES = 768 * 1024
"""Of one value, which a codec makes a thousandth of; librdkafka sends no more than a megabyte by itself."""

Spoil = Callable[[Sending], Sending]


def _headed(sending: Sending, *headers: tuple[str, bytes | None]) -> Sending:
    return replace(sending, headers=(*sending.headers, *headers))


def _nested(sending: Sending) -> bytes:
    return b'{"org_id": "%b", "deep": %b%b}' % (sending.org_id.encode(), b"[" * DEPTH, b"]" * DEPTH)


def _valued(sending: Sending, value: bytes) -> Sending:
    return replace(sending, value=value)


def _lost(sending: Sending) -> Sending:
    return replace(sending, command_id=None)


def _enveloped(sending: Sending, **members: Any) -> Sending:
    made = structured(sending)
    return replace(made, value=json.dumps(json.loads(made.value or b"{}") | members).encode())


_BODIES: dict[str, Spoil] = {f"body {number}": spoil for number, spoil in enumerate(UNANSWERABLE_BODY)}
_IDS: dict[str, Spoil] = {f"id {number}": lambda s, n=number: unreadable(s, n) for number in range(len(UNREADABLE))}
SPOILS: dict[str, Spoil] = {
    **_BODIES,
    **_IDS,
    "64 KiB header": lambda s: _headed(s, ("x-big", b"\xfe" * HEADER_BYTES)),
    "a thousand headers": lambda s: _headed(s, *((f"x-{n}", None) for n in range(1000))),
    "null and non-UTF-8 headers": lambda s: _headed(s, ("x-null", None), ("x-odd", b"\xff\xfe"), ("", b"")),
    "depth 10,000": lambda s: _valued(s, _nested(s)),
    "lone surrogate": lambda s: _valued(s, (s.value or b"")[:-1] + b', "note": "\\ud800"}'),
    "NUL": lambda s: _valued(s, json.dumps({"org_id": s.org_id, "name": "a\0b"}).encode()),
    "control characters": lambda s: _valued(s, json.dumps({"org_id": s.org_id, "name": "a\x1b[2Jb"}).encode()),
    "control characters in ce_actor": lambda s: _headed(s, ("ce_actor", b"ann\r\nbob")),
    "two ids": lambda s: _lost(_headed(s, ("ce_id", b"11111111-1111-4111-8111-111111111111"))),
    "two types": lambda s: _headed(s, ("ce_type", b"org.delete")),
    "foreign key": lambda s: replace(s, key=b"11111111-1111-4111-8111-111111111111"),
    "bomb": lambda s: _valued(s, b" " * BOMB_BYTES),
    "structured, depth 10,000": lambda s: _lost(_valued(structured(s), _nested(s))),
    "structured, data that is not Base64": lambda s: _enveloped(s, data=None, data_base64="?"),
    "structured, an id that is a number": lambda s: _lost(_enveloped(s, id=7)),
}
"""Ways to spoil a command, by name. Some leave it as it is for whoever reads well: such a one is applied."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A record for `orgs.memberships`; a bad one must be parked."""

    key: bytes
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes | None], ...] = ()


def membership(user_id: str, org_id: str, role: str) -> dict[str, Any]:
    return {"user_id": user_id, "org_id": org_id, "role": role, "joined_at": "2024-05-17T09:30:00Z"}


Feint = Callable[[str, str, bytes, int], Fact]
"""From a user, an organization, their key and the number of partitions to a bad record."""

FEINTS: dict[str, Feint] = {
    "not JSON": lambda _u, _o, key, _n: Fact(key, b"\xff\xfe{"),
    "no bytes": lambda _u, _o, key, _n: Fact(key, b""),
    "depth 10,000": lambda _u, _o, key, _n: Fact(key, b"[" * DEPTH + b"]" * DEPTH),
    "bomb": lambda _u, _o, key, _n: Fact(key, b" " * BOMB_BYTES),
    "NUL": lambda _u, org, key, _n: Fact(key, json.dumps(membership("a\0", org, "admin")).encode()),
    "lone surrogate": lambda _u, org, key, _n: Fact(key, json.dumps(membership("\ud800", org, "admin")).encode()),
    "another's key": lambda _u, org, key, _n: Fact(key, json.dumps(membership("mallory", org, "admin")).encode()),
    "an unknown role": lambda u, org, key, _n: Fact(key, json.dumps(membership(u, org, "root")).encode()),
    "tombstone of nothing": lambda _u, _o, _k, _n: Fact(b"\xff\x00", None),
    "64 KiB key": lambda u, org, _k, _n: Fact(b"k" * 65_536, json.dumps(membership(u, org, "admin")).encode()),
    "wrong partition": lambda u, org, key, n: Fact(
        key, json.dumps(membership(u, org, "admin")).encode(), (partition_of(key, n) + 1) % n
    ),
    "tombstone on a wrong partition": lambda _u, _o, key, n: Fact(key, None, (partition_of(key, n) + 1) % n),
}
"""Ways to make a membership that must not be believed, by name."""
