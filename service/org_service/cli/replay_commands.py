"""`orgs replay commands`: commands decided again where it changes nothing, or published again."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from org_service.cli import operations, shell
from org_service.cli.filters import MOMENTS, FromMarkOption, ToMarkOption, exclude_marks, ids_in, utc

if TYPE_CHECKING:
    from org_service.domain.policy import Policy
    from org_service.operate.commands import CommandSelection
    from org_service.operate.operation import Tool
    from org_service.operate.rehearsing.report import Difference, Report
    from org_service.settings import Settings

_FIELDS_SHOWN = 3
_KINDS_SHOWN = 20
_BECAUSE = {
    "policy": "by the policy that is tried",
    "follows": "following from an earlier difference",
    "access": "since memberships, partnerships, staff or the policy in force changed, as it seems",
    "rules": "by other rules, another build or other settings",
}


def commands(
    *,
    from_offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARTITION:OFFSET", help="The first record of a partition; may be repeated.", show_default=False
        ),
    ] = None,
    to_offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARTITION:OFFSET", help="The last record of a partition; may be repeated.", show_default=False
        ),
    ] = None,
    from_mark: FromMarkOption = None,
    to_mark: ToMarkOption = None,
    from_time: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="In Kafka at or after this, UTC.", show_default=False)
    ] = None,
    to_time: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="In Kafka before this, UTC.", show_default=False)
    ] = None,
    org: Annotated[
        list[UUID] | None, typer.Option(help="For this organization; may be repeated.", show_default=False)
    ] = None,
    org_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="For the organizations in a file, an id a line.", show_default=False
        ),
    ] = None,
    command: Annotated[
        list[UUID] | None, typer.Option(help="With this command id; may be repeated.", show_default=False)
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Judge by the policy in a file, to try it.", show_default=False),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Plan to publish them again, for `orgs run ID`.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="Publish them again at once.")] = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: each difference, then the summary.")
    ] = False,
) -> None:
    """Decide commands again and print what differs from what was recorded; nothing is changed.

    Each command is judged as it was: on the organization as the journal says it was then, its token by the moment that
    Kafka got it, in the order of the journal. Reference data are those of now. With --policy the rules of another
    policy apply: so it is tried on last month's commands. To try another build, run this command of that build.

    Exits with 1 where something differs. All conditions hold at once; a partition that is not named is not read where
    one is.

    With --plan, --execute or --detach nothing is rehearsed: the records are published again instead, with the same key,
    value and headers, and each command that has an outcome gets it again.

    Example: `orgs replay commands --from-time 2026-11-01 --policy new-policy.toml`
    """
    from org_service.operate.commands import CommandSelection

    publishes = plan or execute or detach
    if publishes and policy is not None:
        raise typer.BadParameter("--policy is for a rehearsal: it has no effect on what is published again")
    if not publishes and (reason or rate_per_second_max is not None):
        raise typer.BadParameter("--reason and --rate-per-second-max are for --plan, --execute and --detach")
    exclude_marks("offset", (from_offset or None, to_offset or None), (from_mark, to_mark))
    if from_time is not None and to_time is not None and to_time <= from_time:
        raise typer.BadParameter("--to-time is not after --from-time")
    firsts, lasts = _offsets(from_offset, "--from-offset"), _offsets(to_offset, "--to-offset")
    if any(last < firsts.get(partition, 0) for partition, last in lasts.items()):
        raise typer.BadParameter("--to-offset is before --from-offset")
    settings = shell.quiet_settings()
    selection = CommandSelection(
        from_offsets=firsts,
        to_offsets=lasts,
        from_time=utc(from_time),
        to_time=utc(to_time),
        org_ids=(*(org or ()), *ids_in(org_file)),
        command_ids=tuple(command or ()),
    )
    if from_mark is not None or to_mark is not None:
        selection = shell.run(selection.between_marks(settings, from_mark, to_mark))
    if not publishes:
        _rehearse(settings, selection, _read_policy(policy), as_json=as_json)
        return

    async def make() -> "Tool":
        from org_service.operate.replay_commands import ReplayCommands

        return await ReplayCommands.make(settings, selection)

    operations.offer(
        settings,
        make,
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


def _offsets(given: list[str] | None, option: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for each in given or ():
        partition, _, offset = each.partition(":")
        if not (partition.isdecimal() and offset.isdecimal() and partition.isascii() and offset.isascii()):
            raise typer.BadParameter(f"{option} {each}: must be a partition and an offset, as 3:1200")
        if int(partition) in found:
            raise typer.BadParameter(f"{option} {each}: partition {partition} has one already")
        found[int(partition)] = int(offset)
    return found


def _read_policy(path: Path | None) -> "Policy | None":
    if path is None:
        return None
    from org_service.domain.policy import PolicyError, read_policy

    try:
        return read_policy(path.read_text(encoding="utf-8"))
    except (PolicyError, UnicodeDecodeError) as error:
        said = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise typer.BadParameter(f"--policy {path}: {said}") from None


def _rehearse(settings: "Settings", selection: "CommandSelection", policy: "Policy | None", *, as_json: bool) -> None:
    from org_service.operate.rehearsing.rehearsal import Rehearsal
    from org_service.settings import LogSettings
    from org_service.telemetry.logs import set_up_logging

    set_up_logging(LogSettings(level="error", format="console"))  # what is rehearsed is no news
    rehearsal = Rehearsal(settings, selection, policy=policy)

    def show(difference: "Difference") -> None:
        if as_json:
            shell.write_json(_document(difference))
        else:
            shell.out().print(_line(difference))

    with shell.make_progress_bar() as progress:
        task = progress.add_task("rehearsing", total=None, rate="")

        def report_progress(report: "Report") -> None:
            said = f"{report.records:,} commands, {report.rate:,.0f}/s, {report.differences:,} differences"
            progress.update(task, total=report.offsets, completed=report.read, rate=said)

        try:
            report = shell.run_fast(rehearsal.run(show, report_progress))
        except KeyboardInterrupt:
            progress.stop()
            _summarize(rehearsal.report, selection, tries=policy is not None, as_json=as_json, ended=False)
            raise
    _summarize(report, selection, tries=policy is not None, as_json=as_json, ended=True)
    if report.differences:
        raise typer.Exit(shell.FAILED)


def _document(difference: "Difference") -> dict[str, Any]:
    fields = {name: each._asdict() for name, each in difference.fields.items()}
    return {"kind": "difference", **difference._asdict(), "fields": fields}


def _line(difference: "Difference") -> str:
    where = f"{difference.partition}:{difference.offset}"
    if difference.position is not None:
        where = f"position {difference.position}, {where}"
    said = f"{difference.recorded} -> {difference.rehearsed}"
    if difference.recorded == difference.rehearsed:
        shown = [f"{name} {each.recorded!r} -> {each.rehearsed!r}" for name, each in difference.fields.items()]
        more = f" and {len(shown) - _FIELDS_SHOWN} more" if len(shown) > _FIELDS_SHOWN else ""
        said = f"{difference.recorded}, but {'; '.join(shown[:_FIELDS_SHOWN])}{more}"
    who = f" by {difference.actor}" if difference.actor else ""
    return (
        f"{where}  {difference.org_id}  {difference.command_type} {difference.command_id}{who}: {said}  "
        f"[{difference.because}]"
    )


def _summarize(report: "Report", selection: "CommandSelection", *, tries: bool, as_json: bool, ended: bool) -> None:
    if as_json:
        shell.write_json(
            {
                "kind": "summary",
                "complete": ended,
                "commands": report.records,
                "differences": report.differences,
                "because": dict(report.because),
                "kinds": dict(report.kinds),
                "outcomes": dict(report.outcomes),
                "not_rehearsed": dict(report.left_out),
                "taken_by_retention": report.taken,
                "judged_by_token": report.by_token,
                "tokens_taken_as_recorded": report.vouched,
                "seconds": round(report.seconds, 3),
            }
        )
        return
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in report.outcomes.most_common())
    stopped = "" if ended else ", then stopped"
    speed = f"in {report.seconds:.1f} s, {report.rate:,.0f}/s"
    shell.say(f"{report.records:,} records rehearsed {speed}{stopped}: {outcomes or 'no outcome'}")
    for why, count in report.left_out.most_common():
        shell.say(f"{count:,} not rehearsed: {why}")
    if report.taken:
        shell.say(f"{report.taken:,} decided commands of this selection are no longer in Kafka: retention took them")
    elif not (selection.from_offsets or selection.from_time or selection.command_ids):
        shell.say("from the beginning of what Kafka still has")
    if report.by_token:
        shell.say(f"{report.by_token:,} were judged by the policy, with memberships, partnerships and staff as of now")
    elif tries:
        shell.say(
            "the policy made no difference to any: none of them came with the token of a user who has a role there"
        )
    if report.vouched:
        shell.say(f"{report.vouched:,} tokens count as recorded: the issuer no longer lists their keys")
    if not report.differences:
        shell.say("no difference")
        return
    shell.say(f"{report.differences:,} differences:")
    for because, count in report.because.most_common():
        shell.say(f"  {count:,} {_BECAUSE[because]} [{because}]")
    for kind, count in report.kinds.most_common(_KINDS_SHOWN):
        shell.say(f"  {count:,} x {kind}")
