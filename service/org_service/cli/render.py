"""Records and rows as one readable line each. Pure; what comes from outside is made printable first."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from rich.text import Text

from org_service.operate.words import moment, operation_state, printable, value

if TYPE_CHECKING:
    from org_events.results import Result
    from org_service.domain.organization import StoredOrganization
    from org_service.operate.past import Difference
    from org_service.store.journal import HistoryEntry
    from org_service.store.marks import Mark
    from org_service.store.operations import Operation

_STYLES: Final = {
    "created": "green",
    "restored": "green",
    "reactivated": "green",
    "applied": "green",
    "updated": "cyan",
    "changed": "cyan",
    "unchanged": "cyan",
    "deactivated": "yellow",
    "parked": "yellow",
    "deleted": "red",
    "erased": "red",
    "rejected": "red",
    "unreadable": "bold red",
    "running": "cyan",
    "paused": "yellow",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
}


def clock(timestamp_ms: int) -> str:
    """The time of day to the millisecond, UTC; as it is where publishers claim what no calendar has."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"


def base64_of(content: bytes) -> str:
    """Bytes in Base64."""
    return base64.b64encode(content).decode()


def as_json(content: bytes | None) -> str | dict[str, str] | None:
    """Bytes in JSON: text where they are UTF-8, else `{"base64": …}`."""
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return {"base64": base64_of(content or b"")}


def changes(
    changed: Sequence[str], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Iterator[tuple[str, str | None, str | None]]:
    """Of each changed field: name, value before, value after; None where there was no organization."""
    for name in changed:
        yield (
            name,
            None if before is None else value(before.get(name)),
            None if after is None else value(after.get(name)),
        )


def diff(changed: Sequence[str], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Text:
    """The changed fields of an event: `domain acme.com → null`; of a new organization only what it has."""
    line = Text()
    for name, was, now in changes(changed, before, after):
        if line:
            line.append(" · ", "dim")
        line.append(f"{name} ", "dim")
        if was is not None:
            line.append(was, "red" if now is not None else "")
        if was is not None and now is not None:
            line.append(" → ", "dim")
        if now is not None:
            line.append(now, "green" if was is not None else "")
    return line


def word(text: str, width: int = 0) -> Text:
    """A type or outcome in its colour."""
    return Text(text.ljust(width), _STYLES.get(text, ""))


def who(actor: str | None) -> Text:
    """` by alice`, nothing for nobody."""
    return Text() if actor is None else Text(f"  by {printable(actor)}", "dim")


class UnreadableRecordError(ValueError):
    """A record that isn't what its topic promises."""


def event(headers: Mapping[str, bytes | None], raw: bytes | None) -> Text:
    """An event: `v3 updated  Acme  domain acme.com → null`.

    Raises:
        Unreadable: It is not an event.
    """
    body = document(raw)
    kind = _text(headers.get("ce_type")).removeprefix("org.")
    before, after = body.get("before"), body.get("after")
    name = value((before or after or {}).get("name"))
    return Text.assemble(
        (f"v{body['version']} ".rjust(5), "bold"),
        word(kind, 12),
        (name, "bold"),
        "  ",
        diff([each for each in body["changed"] if not (each == "name" and before is None)], before, after),
        who(body.get("actor")),
    )


def result(raw: bytes | None) -> Text:
    """An outcome: `rejected 409  Another organization has this name: …  command 0190…`.

    Raises:
        Unreadable: It is not a result.
    """
    body = document(raw)
    line = Text.assemble(word(str(body["outcome"]), 10), f"{body['code']}  ")
    problem, organization = body.get("problem"), body.get("organization")
    if problem:
        line.append(problem_line(problem))
    elif organization:
        line.append(Text.assemble((value(organization["name"]), "bold"), f" v{body['version']}"))
    else:
        line.append(f"{body['org_id']} v{body['version']}")
    return line.append(f"  command {body['command_id']}", "dim")


def problem_line(problem: Mapping[str, Any]) -> str:
    """A problem with its wrong fields on one line."""
    fields = "; ".join(f"{each['path']}: {each['message']}" for each in problem.get("errors") or ())
    return printable(f"{problem['title']}: {problem['detail']}") + (f" [{printable(fields)}]" if fields else "")


def command(headers: Mapping[str, bytes | None], key: bytes | None, raw: bytes | None) -> Text:
    """A command: `update  0190…  domain null  by alice  command 0190…`.

    Raises:
        Unreadable: It can't be read as a command.
    """
    command_id = _text(headers.get("ce_id"))
    body = document(raw)
    fields = [f"{printable(name)} {value(content)}" for name, content in body.items() if name != "org_id"]
    actor = headers.get("ce_actor")
    return Text.assemble(
        word(printable(_text(headers.get("ce_type")).removeprefix("org.")), 12),
        (printable(_text(key)), "bold"),
        "  ",
        " · ".join(fields),
        who(None if actor is None else _text(actor)),
        (f"  command {printable(command_id)}", "dim"),
    )


def outcome(result: "Result") -> Text:
    """The outcome of one command, on a few lines."""
    line = Text.assemble(word(result.outcome.value), f" {result.code}")
    if result.version is not None:
        line.append(f"  v{result.version}", "bold")
    if result.organization is not None:
        line.append(f"  {value(result.organization.name)}", "bold")
        fields = result.organization.model_dump(mode="json")
        for name in ("domain", "primary_address"):
            if fields[name] is not None:
                line.append(f" · {value(fields[name])}", "dim")
    if result.problem is not None:
        line.append(f"  {printable(result.problem.title)}: {printable(result.problem.detail)}")
        for wrong in result.problem.errors:
            line.append(f"\n  {printable(wrong.path)}: {printable(wrong.message)}")
    return line.append(f"\n  organization {result.org_id}  command {result.command_id}", "dim")


def organization(found: "StoredOrganization") -> Text:
    """An organization, a line a field."""
    state = "active"
    if found.deactivated_at is not None:
        state = f"deactivated {moment(found.deactivated_at)}"
    if found.deleted_at is not None:
        state = f"deleted {moment(found.deleted_at)}"
    lines = Text(value(found.name), "bold")
    for label, content in (
        ("id", str(found.id)),
        ("version", str(found.version)),
        ("state", state),
        ("domain", value(found.domain)),
        ("address", value(found.primary_address)),
        ("created", moment(found.created_at)),
        ("updated", moment(found.updated_at)),
    ):
        lines.append(f"\n  {label:<9}", "dim").append(content)
    return lines


def change(entry: "HistoryEntry") -> Text:
    """One change of a history: `v3  2025-11-23 18:00:00Z  updated  domain acme.com → null  by alice`."""
    return Text.assemble(
        (f"v{entry.version} ".rjust(5), "bold"),
        (f"{moment(entry.recorded_at)}  ", "dim"),
        word(entry.event_type.removeprefix("org."), 12),
        diff(entry.changed, entry.before, entry.after),
        who(entry.actor),
        (f"  command {entry.command_id}", "dim"),
    )


def difference(found: "Difference") -> Text:
    """What differs of one organization: `changed v3 → v5  0190c5f0-…  Acme  domain acme.com → null`."""
    versions = f"v{found.version}" if found.from_version is None else f"v{found.from_version} → v{found.version}"
    named = [each for each in found.changed if not (each == "name" and None in (found.before, found.after))]
    return Text.assemble(
        word(found.kind, 9),
        (f"{versions}  ", "bold"),
        (f"{found.org_id}  ", "dim"),
        (printable(found.name), "bold"),
        "  ",
        diff([] if found.after is None else named, found.before, found.after),
    )


def unreadable(topic: str, partition: int, offset: int, why: str) -> Text:
    """What is shown of a record that can't be shown: where it is."""
    return Text.assemble(word("unreadable", 12), f"{topic}[{partition}] offset {offset}: {printable(why)}")


def document(raw: bytes | None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Unreadable: It is none.
    """
    if raw is None:
        raise UnreadableRecordError("no value")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnreadableRecordError("the value is not JSON") from error
    if not isinstance(body, dict):
        raise UnreadableRecordError("the value is not a JSON object")
    return cast("dict[str, Any]", body)


def _text(content: bytes | None) -> str:
    if content is None:
        raise UnreadableRecordError("a header or the key is missing")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UnreadableRecordError("a header or the key is not UTF-8") from error


def operation_document(operation: "Operation") -> dict[str, Any]:
    """An operation as JSON."""
    document = operation._asdict() | {"state": operation_state(operation)}
    del document["now"]
    return document


def operation_line(operation: "Operation") -> Text:
    """An operation: `0190c5f0-…  running    replay events  1,200 of 5,000  by alice  2026-11-28 …  lost by billing`."""
    state = operation_state(operation)
    progress = (
        f"{operation.items:,} items"
        if state in ("planned", "expired")
        else f"{operation.done:,} of {operation.items:,}"
        if operation.items
        else ""
    )
    return Text.assemble(
        (str(operation.id), "bold"),
        "  ",
        word(state, 10),
        operation.kind,
        f"  {progress}" if progress else "",
        who(operation.requested_by),
        (f"  {moment(operation.created_at)}", "dim"),
        f"  {printable(operation.reason)}" if operation.reason else "",
    )


def operation_details(operation: "Operation") -> Iterator[Text]:
    """What one needs to know of one operation, a line each."""
    for name, content in operation.facts.items():
        yield Text.assemble((f"  {name} ", "dim"), f"{content:,}" if isinstance(content, int) else value(content))
    if operation.rate_per_second_max is not None:
        yield Text.assemble(("  at most ", "dim"), f"{operation.rate_per_second_max:g}/s")
    if operation.asked_for is not None:
        yield Text(f"  asked to become {operation.asked_for}: after the step in flight", "yellow")
    if operation.approved_by is not None:
        yield Text.assemble(("  approved by ", "dim"), printable(operation.approved_by))
    if operation.counts:
        yield Text("  " + ", ".join(f"{number:,} {name}" for name, number in sorted(operation.counts.items())))
    if isinstance(operation.progress, dict):
        progress = cast("dict[str, Any]", operation.progress)
        for failure in progress.get("failed", ()):
            yield Text(f"  {printable(failure['item'])}: {printable(failure['why'])}", "yellow")
    if operation.error is not None:
        yield Text(f"  {operation.error}", "red")


def mark_line(mark: "Mark") -> Text:
    """A mark: `before-release-7  position 40,213  2026-11-28 18:00:00Z  by alice  prices move`."""
    return Text.assemble(
        (mark.name, "bold"),
        f"  position {mark.position:,}  ",
        (moment(mark.marked_at), "dim"),
        who(mark.marked_by),
        f"  {printable(mark.reason)}" if mark.reason else "",
    )


def mark_details(mark: "Mark") -> Iterator[Text]:
    """Where topics and groups stood at a mark, a line each."""
    for topic, then in mark.topics.items():
        yield Text.assemble((f"  {printable(topic)} ends at ", "dim"), _offsets(then["ends"]))
    for group, topics in mark.groups.items():
        for topic, committed in topics.items():
            yield Text.assemble((f"  {printable(group)} on {printable(topic)} at ", "dim"), _offsets(committed))


def _offsets(by_partition: Mapping[str, int]) -> str:
    return ", ".join(f"{partition}:{offset:,}" for partition, offset in sorted(by_partition.items(), key=_number))


def _number(item: tuple[str, int]) -> int:
    return int(item[0])
