"""The generated tables of `docs/contract.md`: topics, commands, headers, outcomes, problem types, reasons for parking.

Names, codes and titles come from the code that uses them. What a client does with each stands here, because no other
code needs it; a code without a text fails here, and so do the tests.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from org_events import asyncapi
from org_events.commands import COMMANDS
from org_events.events import EventType
from org_events.results import Outcome, ProblemType
from org_events.schemas import MODELS
from org_events.topics import DAY_MS, Topics, TopicSpec
from org_service.domain.reasons import ParkReason
from org_service.edge.http.problems import TITLES, HttpProblem

_OUTCOMES: Final[Mapping[Outcome, tuple[str, str, str]]] = {
    Outcome.APPLIED: ("200", "yes", "The change was made: there is an event and a new version."),
    Outcome.UNCHANGED: ("200", "yes", "There was nothing to change: no event, no new version."),
    Outcome.REJECTED: ("400 to 422", "yes", "Nothing was changed; `problem` says why."),
    Outcome.PARKED: ("500", "no", "Nothing was decided yet; the final outcome follows when an operator decides."),
}
"""Code, whether it is final, and what it means."""

_EVENTS: Final[Mapping[EventType, str]] = {
    EventType.CREATED: "created",
    EventType.UPDATED: "name, domain or address changed",
    EventType.DELETED: "deleted",
    EventType.DEACTIVATED: "deactivated",
    EventType.REACTIVATED: "reactivated",
    EventType.RESTORED: "restored after a delete",
    EventType.ERASED: "erased for good, after it was deleted; `before` and `after` are null",
}

_ADVICE: Final[Mapping[str, tuple[str, str]]] = {
    ProblemType.UNREADABLE: (
        "the record is not a command: invalid JSON, unknown type, key differs from `org_id`, contradictory headers",
        "fix the program",
    ),
    ProblemType.UNAUTHENTICATED: ("no valid token", "get a fresh token, then send a new command"),
    ProblemType.FORBIDDEN: (
        "the actor sees the organization, but the role is denied the action, or reading the organization",
        "do not retry; see [access.md](access.md)",
    ),
    ProblemType.NOT_FOUND: ("no such organization, or the actor cannot see it: nobody can tell which", "do not retry"),
    ProblemType.INVALID_FIELDS: (
        "fields are invalid; `errors` lists each with `path`, `code` and `message`",
        "correct the fields, then send a new command",
    ),
    ProblemType.COMMAND_ID_REUSED: (
        "the command id (over HTTP, the `Idempotency-Key`) belongs to a different command",
        "use a new id for each new command",
    ),
    ProblemType.ALREADY_EXISTS: ("create: an organization with this id exists, or existed", "choose another id"),
    ProblemType.PRECONDITION: (
        "`expected_version` or `if_current` does not hold; over HTTP 412 if the precondition was in a header",
        "read the organization again, decide again, then send a new command",
    ),
    ProblemType.DEACTIVATED: (
        "the organization is deactivated: only reactivate and delete are possible, except for staff",
        "reactivate it first",
    ),
    ProblemType.NAME_TAKEN: ("another organization has this name", "choose another name, then send a new command"),
    ProblemType.STILL_PARTNER: (
        "delete: the organization still serves others as a partner",
        "end the partnerships first",
    ),
    ProblemType.QUEUE_FULL: (
        "an earlier command of the organization is parked, and too many commands wait behind it",
        "send a new command after the operator has decided",
    ),
    ProblemType.PARKED: (
        "the service could not decide; the command is kept for an operator, and the outcome is not final",
        "wait: the final outcome follows. Over HTTP, `Location` leads to it",
    ),
    ProblemType.DISCARDED: (
        "an operator discarded the command, which was parked; nothing was changed. `detail` names the command that "
        "replaces it, if there is one",
        "if it is still wanted, and none replaces it, send a new command",
    ),
    ProblemType.ERASED: (
        "restore: the organization was erased after its deletion. Over HTTP also a repeated request that it answered",
        "create another one, with another id",
    ),
    HttpProblem.BAD_REQUEST: (
        "a parameter, header or body cannot be read; `errors` names it. 501 or 505 for an unknown coding or version",
        "fix the program",
    ),
    HttpProblem.NO_SUCH_PATH: ("nothing at this path", "fix the program"),
    HttpProblem.NO_SUCH_COMMAND: ("no command with this id, or it belongs to someone else", "check the id"),
    HttpProblem.COMMAND_EXPIRED: (
        "only inside `GET /v1/commands/{id}`: Kafka lost the command before it was decided; nothing was changed",
        "send the request again with the same `Idempotency-Key`",
    ),
    HttpProblem.METHOD_NOT_ALLOWED: ("`Allow` lists the methods of the path", "fix the program"),
    HttpProblem.REQUEST_TIMEOUT: ("the body did not arrive within 10 s", "retry"),
    HttpProblem.BODY_TOO_LARGE: ("the body exceeds `ORGS_EDGE__BODY_BYTES_MAX`", "send less"),
    HttpProblem.MEDIA_TYPE: (
        "the `Content-Type` is not supported",
        "send `application/json`; `PATCH` also accepts `application/merge-patch+json`",
    ),
    HttpProblem.MISDIRECTED: (
        "`/mcp` only: the request's host is not one of the service",
        "operator: set `ORGS_EDGE__PUBLIC_URL`",
    ),
    HttpProblem.ORIGIN_NOT_ALLOWED: (
        "`/mcp` only: a web page of an origin that is not allowed",
        "operator: add it to `ORGS_EDGE__CORS_ORIGINS`",
    ),
    HttpProblem.TOO_MANY_REQUESTS: (
        "one actor exceeds `ORGS_EDGE__RATE_PER_S`",
        "retry after `Retry-After`, more slowly",
    ),
    HttpProblem.HEADERS_TOO_LARGE: (
        "the headers exceed `ORGS_EDGE__HEADER_BYTES_MAX`, or there are more than 100",
        "send fewer or shorter headers",
    ),
    HttpProblem.INTERNAL: ("a defect of the service; logged under `X-Request-Id`", "report it"),
    HttpProblem.UNAVAILABLE: (
        "Kafka or Postgres is unavailable, too many requests are in flight, or no known key verifies the token and "
        "newer keys cannot be fetched yet",
        "retry after `Retry-After`; a change with the same `Idempotency-Key`, because it may have been accepted",
    ),
}
"""When each problem type occurs, and what a client does then."""

_REASONS: Final[Mapping[ParkReason, str]] = {
    ParkReason.UNREADABLE: "no command id or fact can be read, or a batch or record exceeds the limits above",
    ParkReason.HANDLER_RAISED: "the service's own code failed on it: a defect",
    ParkReason.DATA_REFUSED: "Postgres refuses its data",
    ParkReason.QUEUED_BEHIND: "an earlier command of the same organization is parked",
    ParkReason.WRONG_PARTITION: "reference data only: the record is on another partition than its key belongs on",
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _topics() -> str:
    rows = [
        (
            f"`{spec.name}`",
            spec.holds,
            str(spec.partitions),
            _retention(spec),
        )
        for spec in Topics().specs()
    ]
    return _table(("topic", "holds", "partitions", "kept"), rows)


def _retention(spec: TopicSpec) -> str:
    if spec.config["cleanup.policy"] == "compact":
        return "compacted"
    return f"{int(spec.config['retention.ms']) // DAY_MS} days"


def _commands() -> str:
    files = {model: name for name, (_, model) in MODELS.items()}
    rows = [
        (f"`{name}`", f"[{files[model]}.json](../events/org_events/schemas/{files[model]}.json)")
        for name, model in COMMANDS.items()
    ]
    return _table(("`ce_type`", "schema of the body"), rows)


def _outcomes() -> str:
    rows = [(f"`{each}`", *_OUTCOMES[each]) for each in Outcome]
    return _table(("outcome", "`code`", "final", "meaning"), rows)


def _headers() -> str:
    messages: dict[str, Any] = asyncapi.make_document()["components"]["messages"]
    described = {
        "event": messages[EventType.UPDATED]["headers"],
        "result": messages["org.result"]["headers"],
        "state": messages["organization"]["headers"],
    }
    names = dict.fromkeys(name for headers in described.values() for name in headers["properties"])
    rows = [(f"`{name}`", *(_header(headers, name) for headers in described.values())) for name in names]
    types = _table(("event `ce_type`", "the organization was"), [(f"`{each}`", _EVENTS[each]) for each in EventType])
    return f"{types}\n\n{_table(('header', *described), rows)}"


def _header(headers: Mapping[str, Any], name: str) -> str:
    """What a message says of one header; empty where it has none of this name."""
    if name not in headers["properties"]:
        return ""
    schema = headers["properties"][name]
    if "const" in schema:
        text = "see above" if name == "ce_type" and schema["const"] == EventType.UPDATED else f"`{schema['const']}`"
    else:
        text = schema.get("description", schema.get("format", "text"))
    return text if name in headers["required"] else f"optional: {text}"


def _problems() -> str:
    rows = [
        (
            str(TITLES[each][0]),
            f"`{each.rpartition(':')[2]}`",
            "all" if isinstance(each, ProblemType) else "HTTP",
            *_ADVICE[each],
        )
        for each in sorted(TITLES, key=lambda each: (TITLES[each][0], each))
    ]
    return _table(("status", "type", "over", "when", "what to do"), rows)


def _reasons() -> str:
    return _table(("reason", "why"), [(f"`{reason}`", _REASONS[reason]) for reason in ParkReason])


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "topics": _topics,
    "commands": _commands,
    "outcomes": _outcomes,
    "headers": _headers,
    "problems": _problems,
    "reasons": _reasons,
}
_BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_tables(page: str) -> str:
    """Fill the generated blocks of a page with what the code says now.

    Raises:
        ValueError: A table has no block in the page.
        KeyError: A block names a table that does not exist, or a code has no text here.
    """
    missing = TABLES.keys() - {name for _, name, _ in _BLOCK.findall(page)}
    if missing:
        raise ValueError(f"no generated block for {', '.join(sorted(missing))}")
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", page)
