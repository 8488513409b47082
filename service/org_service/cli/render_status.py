"""The screen of `orgs status`, and consumer groups as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from org_service.cli.render import operation_line
from org_service.cli.render_parked import group_line
from org_service.operate.words import duration, moment, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from org_service.operate.groups import GroupStanding, Look, Standing
    from org_service.operate.status import Part, Status, Stored

SOON_S: Final = 24 * 3600.0
"""A loss that comes sooner is shown in red: there is a working day to do something."""
PARTITIONS_SHOWN: Final = 10
"""Of those that are behind, in the screen; `orgs offsets show` has all."""


def _loss(loss_s: float | None, lost: int = 0) -> Text:
    text = Text(duration(loss_s), "red" if loss_s is not None and loss_s < SOON_S else "")
    return text.append(f" ({lost:,} lost)", "bold red") if lost else text


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("lag", "behind", "partition", "committed") else "left")
    return table


def groups(found: "Sequence[GroupStanding]") -> Table:
    """Consumer groups, a line each."""
    table = _table("group", "state", "lag", "behind", "time to loss", "worst partition")
    for each in found:
        state = "not visible" if each.group is None else each.group.state
        worst = each.partitions[0]
        table.add_row(
            printable(each.name),
            state if each.group is None or not each.group.members else f"{state}, {each.group.members}",
            f"{each.lag:,}",
            duration(each.lag_s),
            _loss(each.loss_s, each.lost),
            f"{worst.topic}[{worst.partition}]" if each.lag or each.lost else "",
        )
    return table


def partitions(found: "Sequence[Standing]") -> Table:
    """Where a group stands, a line for each partition."""
    table = _table("topic", "partition", "committed", "lag", "behind", "time to loss")
    for each in found:
        table.add_row(
            printable(each.topic),
            str(each.partition),
            "nothing" if each.committed is None else f"{each.committed:,}",
            f"{each.lag:,}",
            duration(each.lag_s),
            _loss(each.loss_s, each.lost),
        )
    return table


def group_document(found: "GroupStanding") -> dict[str, Any]:
    """A group as JSON."""
    return {
        "group": found.name,
        "state": None if found.group is None else found.group.state,
        "members": None if found.group is None else found.group.members,
        "lag": found.lag,
        "lag_s": found.lag_s,
        "lost": found.lost,
        "loss_s": found.loss_s,
        "partitions": [each._asdict() for each in found.partitions],
    }


def screen(status: "Status", worker_group: str) -> "RenderableType":
    """The whole of it."""
    lines: list[RenderableType] = [Text.assemble((moment(status.at), "bold"))]
    lines += _database(status.stored)
    lines += [_relay(status), *_health(status)]
    lines += _kafka(status.look, worker_group)
    lines += _parked(status)
    if status.stored.found is not None:
        lines += [operation_line(each) for each in status.stored.found.runs] or [Text("no run under way", "dim")]
    return Lines(*lines)


def _label(name: str, *content: Any) -> Text:
    return Text.assemble((f"{name:<10}", "dim"), *content)


def _missing(name: str, trouble: str | None) -> Text:
    return _label(name, (f"could not be had: {trouble}", "red"))


def _database(part: "Part[Stored]") -> "Iterator[RenderableType]":
    stored = part.found
    if stored is None:
        yield _missing("database", part.trouble)
        return
    schema = Text(f"{stored.schema}")
    if stored.schema != stored.schema_needed:
        schema = Text(f"{stored.schema}, this release needs {stored.schema_needed}", "red")
    yield _label(
        "database",
        f"PostgreSQL {stored.version}, schema ",
        schema,
        (", a standby", "yellow") if stored.standby else "",
        f", journal at {stored.head:,}",
    )


def _relay(status: "Status") -> Text:
    stored, lag = status.stored.found, status.relay.found
    if lag is None:
        said: tuple[Any, ...] = ((f"could not be had: {status.relay.trouble}", "red"),)
    else:
        style = "red" if lag.seconds > 60 else ""
        said = (f"published up to {lag.position:,}, ", (f"{lag.positions:,} behind, {duration(lag.seconds)}", style))
    if stored is None:
        leader: tuple[str, str] = ("", "")
    elif stored.leader is None:
        leader = ("; nobody leads", "red")
    else:
        since = "" if stored.leader.since is None else f" since {moment(stored.leader.since)}"
        leader = (f"; leader {stored.leader.address or 'local'}, session {stored.leader.pid}{since}", "")
    return _label("relay", *said, leader)


def _health(status: "Status") -> "Iterator[RenderableType]":
    for role, part in status.health.items():
        health = part.found
        if health is None:
            yield _label(role, (f"{part.trouble}", "dim"))
            continue
        failed = {name: said for name, said in health.checks.items() if said.startswith("not ok: ")}
        said = "; ".join(f"{name}: {printable(each.removeprefix('not ok: '))}" for name, each in failed.items())
        yield _label(
            role, "ready" if health.ready else ("not ready: ", "red"), (said, "red"), *_of_others(health.checks)
        )


def _of_others(checks: Mapping[str, str]) -> "Iterator[str]":
    """What no other part of the screen can say: breaker and last verification."""
    for name in ("breaker", "verified"):
        said = checks.get(name)
        if said is not None and not said.startswith("not ok: "):
            yield f"; {name}: {printable(said)}"


def _kafka(part: "Part[Look]", worker_group: str) -> "Iterator[RenderableType]":
    look = part.found
    if look is None:
        yield _missing("kafka", part.trouble)
        return
    if look.missing:
        yield _label("kafka", (f"topics are missing: {', '.join(look.missing)}", "red"))
    if not look.groups:
        yield _label("kafka", ("no consumer group has committed on our topics", "yellow"))
        return
    yield groups(look.groups)
    worst = [each for found in look.groups for each in found.partitions if found.name == worker_group and each.lag]
    worst.sort(key=lambda each: (-each.lag_s, -each.lag))
    if worst:
        yield partitions(worst[:PARTITIONS_SHOWN])


def _parked(status: "Status") -> "Iterator[RenderableType]":
    stored, look = status.stored.found, status.look.found
    if stored is None:
        return
    if not stored.parked:
        yield Text("nothing is parked", "dim")
    for name, each in stored.parked.items():
        loss_s = None if look is None else look.loss_of(each.topic, each.oldest_sent)
        original = "" if loss_s is None else f"  original of the oldest goes in {duration(loss_s)}"
        yield group_line(name, each).append(original, "red" if loss_s is not None and loss_s < SOON_S else "dim")


def document(status: "Status") -> dict[str, Any]:
    """The same as JSON."""
    stored, look, relay = status.stored.found, status.look.found, status.relay.found
    return {
        "at": status.at,
        "unavailable": dict(status.troubles),
        "database": None
        if stored is None
        else {name: getattr(stored, name) for name in ("version", "schema", "schema_needed", "standby", "head")},
        "leader": None if stored is None or stored.leader is None else stored.leader._asdict(),
        "relay": None if relay is None else relay._asdict(),
        "groups": None if look is None else [group_document(each) for each in look.groups],
        "missing_topics": None if look is None else list(look.missing),
        "parked": None
        if stored is None
        else [
            each._asdict()
            | {"name": name, "loss_s": None if look is None else look.loss_of(each.topic, each.oldest_sent)}
            for name, each in stored.parked.items()
        ],
        "runs": None if stored is None else [each._asdict() for each in stored.runs],
        "health": {
            role: {"unavailable": part.trouble} if part.found is None else part.found._asdict()
            for role, part in status.health.items()
        },
    }
