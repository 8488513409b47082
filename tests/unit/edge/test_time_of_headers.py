"""No header that fits into a head keeps the loop busy, however it is made: each is read in linear time."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from org_service.auth.tokens import TokenRejected, parse_bearer
from org_service.edge.http.problems import ProblemError
from org_service.edge.http.request_headers import (
    derive_command_id,
    is_current,
    is_sane_request_id,
    is_unencoded,
    parse_media_type,
    parse_preference,
    read_if_match,
)
from org_service.edge.http.target import clean_query, decode_path
from org_service.serving.framing import MalformedError, RequestReader
from org_service.wire.ids import read_traceparent

CHARS = 15_500
"""Of a run; a head has 16 KiB at most."""
READ_S_MAX = 0.1
TAGS_S_MAX = 0.003
"""A list of 5,000 tags took 13 ms, of ten it takes 10 µs."""
RUNS = [
    *' \t,"\\;=a/*v1.:-[%@é',
    "W/",
    '""',
    '"",',
    '"v1",',
    "a=",
    "a,",
    "a ",
    " ,",
    '\\"',
    "a;",
    "a:",
    ". ",
    "%2F",
    "&=",
]


def head(line: str) -> Callable[[str], object]:
    """Reads a request with a line as it comes over the network: in pieces."""

    def read(text: str) -> None:
        reader = RequestReader(16_384)
        sent = (line % text).encode("latin-1") + b"\r\n"
        for at in range(0, len(sent), 1_000):
            reader.feed(sent[at : at + 1_000])
            reader.next_head()

    return read


READERS: dict[str, Callable[[str], object]] = {
    "Prefer": lambda text: parse_preference(text, 10),
    "If-Match": read_if_match,
    "If-None-Match": lambda text: is_current(text, b'"v7"'),
    "Content-Type": parse_media_type,
    "Content-Encoding": lambda text: is_unencoded([text]),
    "Idempotency-Key": lambda text: derive_command_id("user", text),
    "X-Request-Id": is_sane_request_id,
    "traceparent": read_traceparent,
    "Authorization": lambda text: parse_bearer(text.encode("latin-1")),
    "a path": lambda text: decode_path(text.encode("latin-1")),
    "a query": lambda text: clean_query(text.encode("latin-1")),
    "a header's value": head("GET / HTTP/1.1\r\nhost: x\r\norigin: %s\r\n"),
    "a header's name": head("GET / HTTP/1.1\r\nhost: x\r\n%s: x\r\n"),
    "Host": head("GET / HTTP/1.1\r\nhost: %s\r\n"),
    "Connection": head("GET / HTTP/1.1\r\nhost: x\r\nconnection: %s\r\n"),
    "a target": head("GET /%s HTTP/1.1\r\nhost: x\r\n"),
    "a URL": head("GET http://%s HTTP/1.1\r\nhost: x\r\n"),
}


@pytest.mark.parametrize("name", READERS)
def test_header_parsers_take_linear_time(name: str) -> None:
    slow: list[tuple[str, float]] = []
    for run in RUNS:
        many = run * (CHARS // len(run))
        half = many[: CHARS // 2]
        for text in (many, f"a{many}@", f"a={many}@", f'a="{many}', f"a/b;a={many}@", f"a{half}={half}@"):
            began = time.thread_time()
            with suppress(ProblemError, TokenRejected, MalformedError):
                READERS[name](text)
            took = time.thread_time() - began
            if took > READ_S_MAX:
                slow.append((text[:12], took))
                break
    assert slow == []


def test_a_list_of_etags_is_read_up_to_its_bound() -> None:
    took: list[float] = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(ProblemError):
            read_if_match('"",' * 5_000)
        took.append(time.thread_time() - began)
    assert min(took) < TAGS_S_MAX
