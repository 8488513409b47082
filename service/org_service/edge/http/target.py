"""The request's target as it was sent, where the framework's reading of path and query would lose something.

Servers hand on a path that is decoded already, so an encoded slash looks like one between segments; query parameters
are decoded with replacement characters, and an empty one is a value. Here `%2F` stays a part of its segment, bytes that
are not UTF-8 are rejected, and an empty parameter (`cursor=`, as templates and forms send) is an absent one.
"""

import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from org_service.edge.http.problems import Wrong, bad_request
from org_service.serving.exchange import Asgi, Receive, Scope, Send

_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)


def decode_path(raw_path: bytes) -> str:
    """The path by which to route; an encoded slash stays encoded, so it can't part one segment into two.

    Args:
        raw_path: As sent, without the query.
    """
    return unquote(_SLASH.sub(b"%252F", raw_path).decode("latin-1"))


def clean_query(raw: bytes) -> bytes:
    """The query without empty parameters.

    Raises:
        ProblemError: A name or a value is not UTF-8 (400).
    """
    kept: list[bytes] = []
    wrong: list[Wrong] = []
    for pair in raw.split(b"&"):
        name, _, value = pair.partition(b"=")
        if not value:
            continue
        kept.append(pair)
        try:
            unquote_to_bytes(name.replace(b"+", b" ")).decode()
            unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            shown = unquote_to_bytes(name).decode(errors="replace")
            wrong.append(Wrong(shown, "not_utf8", "Must be UTF-8, percent-encoded"))
    if wrong:
        raise bad_request("A parameter is not UTF-8; see errors.", wrong)
    return b"&".join(kept)


class Target:
    """An ASGI application that hands on requests with path and query as they were meant.

    Args:
        inner: The router.
    """

    def __init__(self, inner: Asgi) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on one request; its scope is changed, so that whoever handed it in sees the same path."""
        raw_path: bytes | None = scope.get("raw_path")
        if raw_path is not None and _SLASH.search(raw_path):
            scope["path"] = decode_path(raw_path)
        if scope["query_string"]:
            scope["query_string"] = clean_query(scope["query_string"])
        await self._inner(scope, receive, send)
