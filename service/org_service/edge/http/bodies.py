"""A request's body, and the body of the command that becomes of it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

import orjson

from org_events.commands import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from org_service.edge.http.commands import CommandBody
from org_service.edge.http.limits import too_large
from org_service.edge.http.problems import HttpProblem, ProblemError, Wrong, bad_request
from org_service.edge.http.request_headers import NO_VERSION, is_unencoded, parse_media_type
from org_service.wire.body import measure_depth, write_version_plainly

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""Names of charsets whose bytes are UTF-8; JSON knows no other (RFC 8259, section 8.1)."""
OTHER_MEDIA_TYPE: Final = "The body has another media type."
BOM: Final = b"\xef\xbb\xbf"
"""The byte order mark. Before JSON in UTF-8 it means nothing (RFC 8259, section 8.1)."""
NEVER: Final = (NO_VERSION,)
"""No version: the change can only be rejected, but who may not see or do it is told that first."""


def check_media_type(content_type: str | None, encodings: Sequence[str], *, patch: bool) -> None:
    """Reject a body by its headers, unless they say that it is JSON.

    Args:
        content_type: The header; its parameters mean nothing, but for a charset that is not UTF-8.
        encodings: The lines of `Content-Encoding`.
        patch: Whether a merge patch is welcome.

    Raises:
        ProblemError: It has another media type, or is encoded (415).
    """
    wrong = _wrong_media_type(content_type, _accepted(patch=patch))
    if wrong is None and not is_unencoded(encodings):
        wrong = "Content-Encoding is not supported."
    if wrong is not None:
        raise unsupported_media_type(wrong, patch=patch)


def unsupported_media_type(why: str, *, patch: bool) -> ProblemError:
    """415, with what is accepted.

    Args:
        why: What is wrong, in a sentence.
        patch: Whether a merge patch is welcome.
    """
    accepted = _accepted(patch=patch)
    # RFC 5789, section 2.2.
    named: list[tuple[bytes, bytes]] = [(b"accept-patch", ", ".join(accepted).encode())] if patch else []
    detail = f"{why} Send {' or '.join(accepted)}, in UTF-8 and without Content-Encoding."
    return ProblemError(HttpProblem.MEDIA_TYPE, detail, headers=named)


def _accepted(*, patch: bool) -> tuple[str, ...]:
    return (JSON, MERGE_PATCH) if patch else (JSON,)


def read_object(content: bytes, content_type: str | None, encodings: Sequence[str], *, patch: bool) -> dict[str, Any]:
    """The JSON object of a request's body.

    Args:
        content: The body, perhaps with a byte order mark.
        content_type: As for `check_media_type`.
        encodings: As for `check_media_type`.
        patch: As for `check_media_type`.

    Raises:
        ProblemError: It has another media type (415), or is no such object (400).
    """
    check_media_type(content_type, encodings, patch=patch)
    try:
        parsed = orjson.loads(content.removeprefix(BOM))
    except orjson.JSONDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise bad_request("The body is UTF-16; send UTF-8.") from error
        raise bad_request(f"The body is not JSON: {error.msg} at character {error.pos}.") from error
    if not isinstance(parsed, dict):
        said = ", not a string that contains one" if isinstance(parsed, str) else ""
        raise bad_request(f"The body must be a JSON object{said}.")
    if content.count(b"{") + content.count(b"[") > PAYLOAD_DEPTH_MAX and measure_depth(parsed) > PAYLOAD_DEPTH_MAX:
        raise bad_request(f"The body is nested more than {PAYLOAD_DEPTH_MAX} levels deep.")
    return cast("dict[str, Any]", parsed)


def _wrong_media_type(content_type: str | None, accepted: Sequence[str]) -> str | None:
    if not content_type:
        return "The header Content-Type is missing."
    found = parse_media_type(content_type)
    if found is None:
        return "The header Content-Type is malformed (RFC 9110, section 8.3)."
    name, parameters = found
    if name not in accepted:
        return OTHER_MEDIA_TYPE
    if parameters.get("charset", "utf-8").lower() not in _UTF_8:
        return "The charset must be utf-8 or absent."
    return None


def make_bodies(fields: Mapping[str, Any], org_id: UUID, versions: tuple[int, ...] | None) -> Sequence[CommandBody]:
    """The bodies of a command, one for each version that the headers let through; canonical: a repetition is the same.

    Raises:
        ProblemError: The body names another organization, or the version is said twice (400); it is too large (413).
    """
    named = fields.get("org_id")
    if named is not None and (not isinstance(named, str) or named.lower() != str(org_id)):
        raise bad_request("org_id must be the one in the path.", [Wrong("org_id", "other_org_id", "Omit it")])
    whole = {**fields, "org_id": str(org_id)}
    write_version_plainly(whole)
    if versions not in (None, NEVER) and "expected_version" in fields:
        raise bad_request("Give the version only once: in If-Match or in expected_version.")
    bodies = (
        [CommandBody(_canonical(whole))]
        if versions is None
        else [CommandBody(_canonical({**whole, "expected_version": version}), version) for version in versions]
    )
    if any(len(each.value) > PAYLOAD_BYTES_MAX for each in bodies):
        raise too_large(PAYLOAD_BYTES_MAX)
    return bodies


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
