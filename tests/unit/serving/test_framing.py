"""Where a request ends: what could be read in two ways is rejected, the rest is read as h11 and llhttp read it."""

from contextlib import suppress
from typing import Any

import h11
import httptools
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from org_service.serving.framing import Head, MalformedError, RequestReader
from tests.unit.serving.cases import CASES, Case

SECOND = b"GET /v1/second HTTP/1.1\r\nHost: x\r\n\r\n"
Read = list[tuple[str, bytes, bytes]]
"""Method, target as far as its path, and body of each request."""


def read(sent: bytes, cut: int | None = None) -> tuple[Read, int | None]:
    """What our reader makes of it, whole or cut in two, and the status of a rejection."""
    reader, found, body = RequestReader(16_384), Read(), b""
    head: Head | None = None
    for part in [sent] if cut is None else [sent[:cut], sent[cut:]]:
        reader.feed(part)
        try:
            while True:
                if head is None:
                    head, body = reader.next_head(), b""
                if head is None:
                    break
                body += reader.read_body()
                if not reader.whole:
                    break
                found.append((head.method, head.raw_path, body))
                head = None
        except MalformedError as error:
            return found, error.status
    return found, None


def read_by_h11(sent: bytes) -> Read:
    found = Read()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(sent)
    method, target, body = "", b"", b""
    while True:
        try:
            event: Any = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        if isinstance(event, h11.Request):
            method, target, body = event.method.decode(), event.target.partition(b"?")[0], b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            found.append((method, target, bytes(body)))
            rest = connection.trailing_data[0]
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            connection.receive_data(rest)
        else:
            return found


class _Llhttp:
    def __init__(self) -> None:
        self.found = Read()
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.target, self.body = b"", b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_method().decode(), self.target.partition(b"?")[0], self.body))


def read_by_llhttp(sent: bytes) -> Read:
    seen = _Llhttp()
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        seen.parser.feed_data(sent)
    return seen.found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_both_parsers_agree_where_a_request_ends_or_nothing_after_it_is_read(case: Case) -> None:
    found, status = read(case.sent + SECOND)
    if case.status is None:
        assert status is None
        assert [(path, body) for _, path, body in found] == [(b"/v1/first", case.body), (b"/v1/second", b"")]
    else:
        assert found == []
        assert status in ({400, 501} if case.status == 0 else {case.status})


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_way_a_request_is_split_makes_no_difference(case: Case) -> None:
    sent = case.sent + SECOND
    whole = read(sent)
    for cut in range(1, min(len(sent), 400)):
        assert read(sent, cut)[0] == whole[0], cut


NAMES = st.sampled_from(
    [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"X-Y"]
)
VALUES = st.sampled_from([b"x", b"0", b"5", b"05", b"5, 5", b"chunked", b"Chunked", b"identity", b"close", b"h2c", b""])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n "])
COLONS = st.sampled_from([b": "] * 12 + [b":", b" :", b":\t", b""])
HEADERS = st.lists(st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join), max_size=5)
CHUNKS = st.lists(
    st.sampled_from(
        [
            b"5\r\nhello\r\n",
            b"1\r\nX\r\n",
            b"5;a\r\nhello\r\n",
            b"5\nhello\r\n",
            b"0\r\n\r\n",
            b"0\r\nA: b\r\n\r\n",
            b"hello",
        ]
    ),
    max_size=4,
).map(b"".join)
HEADS = st.builds(
    lambda line, host, headers, end: line + host + b"".join(headers) + end,
    st.sampled_from(
        [b"POST /a HTTP/1.1\r\n"] * 6 + [b"GET /b?c HTTP/1.1\r\n", b"GET /a HTTP/1.0\r\n", b"GET  /a HTTP/1.1\r\n"]
    ),
    st.sampled_from([b"Host: x\r\n"] * 6 + [b""]),
    HEADERS,
    ENDS,
)
STREAMS = st.lists(st.one_of(HEADS, CHUNKS, st.just(SECOND)), min_size=1, max_size=5).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(STREAMS)
@example(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n" + SECOND)
def test_whatever_is_accepted_h11_and_llhttp_read_alike(sent: bytes) -> None:
    found, _ = read(sent)
    event(f"{len(found)} requests")
    assert found == read_by_h11(sent)[: len(found)]
    # llhttp gives up at an Upgrade, which is why bodies are counted here; and at what says the connection closes.
    if b"pgrade" not in sent and b"close" not in sent and b"1.0" not in sent:
        assert found == read_by_llhttp(sent)[: len(found)]


def test_an_unread_body_is_never_parsed_as_a_head() -> None:
    reader = RequestReader(16_384)
    reader.feed(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(SECOND) + SECOND)
    assert reader.next_head() is not None
    with pytest.raises(AssertionError):
        reader.next_head()
