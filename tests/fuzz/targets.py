"""The decoders of untrusted bytes, as functions of bytes: each raises only what its contract says, whatever comes.

Each is called by the fuzzer (`python -m tests.fuzz`) and, with fewer inputs, by the suite.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import orjson
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch

from org_events import cloudevents
from org_events.cloudevents import NotACloudEvent
from org_events.kafka import batches
from org_events.kafka.batches import POLL_BYTES_MAX, Batches, Budget
from org_events.kafka.unpacking import UNPACKED_BYTES_MAX, TooLarge, unpack
from org_events.topics import Topics
from org_service.auth import tokens
from org_service.auth.tokens import TokenRejected
from org_service.domain.requests import Rejected, Request, SetAside, Unreadable
from org_service.edge.http import request_headers
from org_service.edge.http.cursor import read_cursor, write_cursor
from org_service.edge.http.problems import ProblemError
from org_service.settings import AuthSettings
from org_service.wire.commands import read
from org_service.wire.facts import Fact, map_kinds, read_fact
from org_service.wire.ids import read_traceparent
from org_service.wire.parked import keep_record
from tests.support import raw_batches
from tests.support.raw_batches import CODECS, NONE, Raw
from tests.support.records import FakeRecord

ORG = "0b5c6f0e-0000-4000-8000-00000000000a"
COMMAND = "0b5c6f0e-0000-4000-8000-00000000000b"
QUESTION = "search=a&order_by=created_at"
_SEPARATOR = b"\x1e"
"""Between the parts of an input."""
_STEP_HEADERS_BYTES = batches._STEP * batches.HEADERS_MAX * batches._HEADER_MEMORY
"""Headers are counted when the records of a step were read."""
_UNPACKED_MAX = 64 * 1024
"""Less than in earnest: the fuzzer shall meet the bound."""
_AUTH = AuthSettings(issuer="https://issuer.example")


def _record(data: bytes) -> FakeRecord:
    """A record of parts: key, value, then names and contents of headers."""
    key, value, *rest = [part or None for part in data.split(_SEPARATOR)] + [None, None][data.count(_SEPARATOR) :]
    names = [(name or b"").decode(errors="replace") for name in rest[::2]]
    return FakeRecord(key, value, list(zip(names, rest[1::2], strict=False)), 0, 0, timestamp=0)


def command(data: bytes) -> None:
    """A command record becomes a request or a reason; the same request has the same digest in any spelling."""
    record = _record(data)
    found = read(record)
    assert isinstance(found, Request | Unreadable)
    keep_record(SetAside(Unreadable(record, "as any record may be")))
    if isinstance(found, Unreadable):
        assert found.detail
        return
    again = read(record)
    assert isinstance(again, Request)
    assert again.digest == found.digest
    if not isinstance(found.command, Rejected) and record.value is not None:
        try:
            body = orjson.loads(record.value)
        except orjson.JSONDecodeError:  # a byte order mark
            return
        spelled = replace(record, value=orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2))
        other = read(spelled)
        assert isinstance(other, Request)
        assert isinstance(other.command, Rejected) or other.digest == found.digest


def fact(data: bytes) -> None:
    """A record of a reference topic becomes a fact with its key, or a reason."""
    record = _record(data)
    for kind in map_kinds(Topics()).values():
        found = read_fact(kind, record)
        assert isinstance(found, Fact | Unreadable)
        if isinstance(found, Fact):
            assert ":".join(map(str, found.key)).encode() == record.key


def envelope(data: bytes) -> None:
    """A structured CloudEvent has an id and a type, and attributes without control characters, or is none."""
    with suppress(NotACloudEvent):
        event = cloudevents.read_structured(data)
        assert event.id
        assert event.type
        assert not any(ord(character) < 32 for text in event.attributes.values() for character in text)


def token(data: bytes) -> None:
    """A header, a token's parts and its claims are read, or rejected."""
    for step in (
        lambda: tokens.parse_bearer(data),
        lambda: tokens._split(data),
        lambda: tokens._read_header(data, _AUTH.algorithms),
        lambda: tokens._read_claims(data, _AUTH),
    ):
        with suppress(TokenRejected):
            step()


def headers(data: bytes) -> None:
    """HTTP headers, which a server hands over as Latin-1, are read or rejected."""
    text = data.decode("latin-1")
    steps: Sequence[Callable[[], object]] = (
        lambda: request_headers.read_if_match(text),
        lambda: request_headers.forbids_any(text),
        lambda: request_headers.is_current(text, b'"v1"'),
        lambda: request_headers.parse_preference(text, 10.0),
        lambda: request_headers.parse_media_type(text),
        lambda: request_headers.require_single(text.split(";"), "if-match"),
        lambda: read_traceparent(text),
        lambda: request_headers.is_sane_request_id(text),
    )
    for step in steps:
        with suppress(ProblemError):
            step()


def cursor(data: bytes) -> None:
    """A cursor is one of ours, or rejected."""
    with suppress(ProblemError):
        read_cursor(QUESTION, data.decode("latin-1"))


def batch(data: bytes) -> None:
    """What a broker sent of a partition becomes records, or is corrupt; how much is unpacked is bounded."""
    budget, number = Budget(), 0
    found = Batches(budget, data)
    with suppress(CorruptRecordException, UnsupportedCodecError):
        while found.has_next():
            one = found.next_batch()
            number += len([_fields(record) for record in one])
            assert budget.spent <= POLL_BYTES_MAX + UNPACKED_BYTES_MAX + _STEP_HEADERS_BYTES
            if not one.compression_type:
                _compare_readers(one._data)
    assert number <= len(data) + budget.spent


def _compare_readers(data: bytes) -> None:
    """aiokafka's reader of plain records finds the same as ours, where both find anything."""
    header = batches._Header(*batches._HEADER.unpack_from(data))
    if not batches._is_usual(data, header.records):
        return
    with suppress(CorruptRecordException, UnicodeDecodeError, batches._TooManyHeaders):
        theirs = [
            _in_32_bits(header.base_offset, _fields(record))
            for record in cast("Any", DefaultRecordBatch(cast("Any", data)))
        ]
        ours = [_fields(record) for record in batches._read_strictly(header, data, Batches(Budget(), b""), whole=False)]
        assert ours == theirs


def _in_32_bits(base: int, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """aiokafka doesn't drop what an offset has beyond; where offsets must be places, that is noticed."""
    return base + (fields[0] - base + 2**31) % 2**32 - 2**31, *fields[1:]


def _fields(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.timestamp_type, record.key, record.value, list(record.headers)


def unpacking(data: bytes) -> None:
    """The rest of a batch, after a byte for its codec, is unpacked within the bound, or rejected."""
    with suppress(TooLarge, CorruptRecordException, UnsupportedCodecError):
        assert len(unpack(data[0] % 8 if data else 0, memoryview(data)[1:], _UNPACKED_MAX)) <= _UNPACKED_MAX


def _joined(*parts: bytes) -> bytes:
    return _SEPARATOR.join(parts)


_BODY = b'{"org_id": "%b", "name": "Acme", "expected_version": 7, "if_current": {"domain": null}}' % ORG.encode()
_MEMBER = b'{"user_id": "ann", "org_id": "%b", "role": "admin", "joined_at": "2024-05-17T09:30:00Z"}' % ORG.encode()
_ENVELOPE = b'{"specversion": "1.0", "id": "%b", "type": "org.update", "source": "/x", "data": %b}' % (
    COMMAND.encode(), _BODY
)  # fmt: skip
_NAMES = (b"ce_id", COMMAND.encode(), b"ce_type", b"org.update", b"ce_actor", b"ann", b"content-type")

_RECORDS = [
    Raw(_BODY, ORG.encode(), [(b"ce_id", COMMAND.encode()), (b"x-null", None), (b"", b"\xff")]),
    Raw(None, b"k"),
    Raw(b"", headers=[(b"\xff\xfe", b"v")], attributes=0x80),
]

TARGETS: Mapping[str, tuple[Callable[[bytes], None], Sequence[bytes]]] = {
    "command": (
        command,
        [
            _joined(ORG.encode(), _BODY, *_NAMES, b"application/json"),
            _joined(ORG.encode(), _ENVELOPE, b"content-type", b"application/cloudevents+json"),
        ],
    ),
    "fact": (
        fact,
        [
            _joined(b"ann:" + ORG.encode(), _MEMBER),
            _joined(b"ann:" + ORG.encode(), b""),
            _joined(b"sue", b'{"user_id": "sue"}'),
        ],
    ),
    "envelope": (envelope, [_ENVELOPE, _ENVELOPE.replace(b'"data": ', b'"data_base64": "e30=", "x": ')]),
    "token": (
        token,
        [
            b"Bearer e30.e30.AA",
            b"e30.e30.AA",
            b'{"alg": "EdDSA", "kid": "1"}',
            b'{"iss": "https://issuer.example", "aud": "orgs", "sub": "ann", "exp": 2000000000, "iat": 1.5}',
        ],
    ),
    "headers": (
        headers,
        [b'"v7", W/"v8", *', b'respond-async, wait=5; a="b\\"c"', b"application/json; charset=utf-8",
         b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    ),
    "batch": (
        batch,
        [
            *(raw_batches.batch(codec, _RECORDS, timestamp=1_700_000_000_000) for codec in (NONE, *CODECS.values())),
            raw_batches.batch(NONE, _RECORDS[:1]) + raw_batches.batch(CODECS["zstd"], _RECORDS),
            raw_batches.batch(NONE, [Raw(b"a", offset_delta=3), Raw(b"b", offset_delta=9)], count=2),
            raw_batches.bomb(CODECS["zstd"], 40 * 1024 * 1024),
        ],
    ),
    "unpacking": (
        unpacking,
        [bytes((codec,)) + raw_batches.packed(codec, [size * b"abc"]) for codec in CODECS.values()
         for size in (1, 30_000)],
    ),
    "cursor": (cursor, [write_cursor(QUESTION, ("2024-05-17T09:30:00+00:00", UUID(ORG))).encode()]),
}  # fmt: skip
"""By name: the target, and inputs to begin from."""

_PIECES = (b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"[" * 2_000, b"9" * 400, b"1e999", b"NaN", b'""', _SEPARATOR,
           b"-1", b"null", b"\\u0000", b"=", b".", b",", b";", b"\r\n", b"\xef\xbb\xbf", b'{"a":')  # fmt: skip


def mutated(seed: bytes, numbers: random.Random) -> bytes:
    """An input near another one."""
    content = bytearray(seed)
    for _ in range(numbers.randint(1, 4)):
        at = numbers.randint(0, len(content))
        end = min(at + numbers.randint(0, 8), len(content))
        change = numbers.randrange(4)
        if change == 0:
            content[at:end] = b""
        elif change == 1:
            content[at:at] = numbers.choice(_PIECES)
        elif change == 2:
            content[at:at] = content[at:end] * numbers.randint(1, 3)
        elif at < len(content):
            content[at] ^= 1 << numbers.randrange(8)
    return bytes(content)
