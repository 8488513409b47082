"""`orgs doctor`: the guarantees, against live settings."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.operate.doctoring.ledger import Entry


def doctor(
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail also where a guarantee is weak or unknown: for a deployment's gate.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and guarantee.")] = False,
) -> None:
    """Check every guarantee of the README against the live settings that it stands on, in Kafka, Postgres and ours.

    For each: it holds; or it is weak (until one disk, machine or login fails), unknown (we may not see it), or void,
    each with what was found and what to do. Nothing is changed. Run it with the logins and settings of the processes.

    Exits with 0 if none is void, with 1 if one is (with --strict also where one is weak or unknown), with 3 if Kafka or
    Postgres did not respond.

    Example: `orgs doctor --strict`
    """
    from org_service.operate.doctoring.facts import gather
    from org_service.operate.doctoring.findings import Verdict
    from org_service.operate.doctoring.ledger import judge

    facts = shell.run(gather(shell.quiet_settings()))
    entries = judge(facts)
    for each in entries:
        if as_json:
            found = [finding._asdict() for finding in each.findings]
            shell.write_json(each._asdict() | {"verdict": each.verdict, "findings": found})
        else:
            _print(each)
    verdicts = {each.verdict for each in entries}
    if not as_json:
        counts = ", ".join(f"{sum(each.verdict == one for each in entries)} {one}" for one in Verdict)
        shell.say(f"of {len(entries)} guarantees: {counts}")
    if Verdict.VOID in verdicts or (strict and verdicts != {Verdict.HOLDS}):
        raise typer.Exit(shell.FAILED)
    if isinstance(facts.postgres, str) or isinstance(facts.kafka, str):
        raise typer.Exit(shell.UNKNOWN)


def _print(entry: "Entry") -> None:
    from rich.text import Text

    from org_service.operate.words import printable

    styles = {"holds": "green", "weak": "yellow", "unknown": "yellow", "void": "bold red"}
    verdict = (f"{entry.verdict:<8}", styles[entry.verdict])
    shell.out().print(Text.assemble((f"{entry.guarantee:>2}  ", "bold"), verdict, entry.text))
    for each in entry.findings:
        if each.advice:
            verdict = (f"{each.verdict:<8}", styles[each.verdict])
            shell.out().print(Text.assemble("    ", verdict, f"{each.about}: {printable(each.found)}"))
            shell.out().print(Text.assemble("            ", ("→ ", "dim"), each.advice))
    stands = ", ".join(each.about for each in entry.findings if not each.advice)
    if stands:
        shell.out().print(Text(f"    stands on {stands}", "dim"))
