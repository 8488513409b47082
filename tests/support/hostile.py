"""Commands that nobody should send."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from tests.support import raw_batches
from tests.support.raw_batches import Raw
from tests.support.sending import UNANSWERABLE_BODY, UNREADABLE, Sending, structured, unreadable

DEPTH = 10_000
HEADER_BYTES = 64 * 1024
BOMB_BYTES = 768 * 1024
"""Of one value, which a codec makes a thousandth of; librdkafka sends no more than a megabyte by itself."""
BIG_BOMB_BYTES = 40 * 1024 * 1024
"""Of a batch that is more than 32 MiB when unpacked, which is what is read."""
YEAR_2100_MS = 4_102_444_800_000

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


def _flipped(sending: Sending) -> Sending:
    """One bit of the value; what that makes of it is for the oracle to say."""
    content = bytearray(sending.value or b"{}")
    bit = UUID(sending.command_id).int % (8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    return _valued(sending, bytes(content))


def of_nobody(sending: Sending) -> Sending:
    """The same for an organization that isn't there: where order isn't kept, none is broken."""
    org_id = str(uuid5(UUID(sending.org_id), sending.command_id or ""))
    body = json.dumps(json.loads(sending.value or b"{}") | {"org_id": org_id}).encode()
    return replace(sending, org_id=org_id, key=org_id.encode(), value=body)


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
    "a flipped bit": _flipped,
    "each header twice": lambda s: _headed(s, *s.headers),
    "the year 2100": lambda s: replace(s, timestamp_ms=YEAR_2100_MS),
    "wrong partition": lambda s: replace(of_nobody(s), astray=1),
    "structured, depth 10,000": lambda s: _lost(_valued(structured(s), _nested(s))),
    "structured, data that is not Base64": lambda s: _enveloped(s, data=None, data_base64="?"),
    "structured, an id that is a number": lambda s: _lost(_enveloped(s, id=7)),
}
"""Ways to spoil a command, by name. Some leave it as it is for whoever reads well: such a one is applied."""

Rough = Callable[[Sending], bytes]

ROUGH: Mapping[str, Rough] = {
    "header names that are not UTF-8": lambda s: _rough(s, [(b"\xff\xfe", b"v"), (b"\xff\xfe", None)], 0),
    "attributes nobody uses": lambda s: _rough(s, [], 0xFF),
}
"""Record batches that no client library would send, by name."""

BIG_BOMB = "a batch that unpacks to 40 MiB"


def big_bomb(sending: Sending) -> bytes:
    """A good command, and then zeros."""
    raw = Raw(sending.value, sending.key, [(name.encode(), content) for name, content in sending.headers])
    return raw_batches.bomb(raw_batches.GZIP, BIG_BOMB_BYTES, raw)


def _rough(sending: Sending, headers: list[tuple[bytes, bytes | None]], attributes: int) -> bytes:
    own = [(name.encode(), content) for name, content in sending.headers]
    raw = Raw(sending.value, sending.key, [*own, *headers], attributes)
    return raw_batches.batch(UUID(sending.org_id).int % 5, [raw])
