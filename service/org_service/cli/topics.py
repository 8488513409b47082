"""`orgs topics`: create missing topics, compare existing ones."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.kafka.topics import TopicPlan

app = typer.Typer(no_args_is_help=True, help="The topics: create and compare.")


@app.callback()
def group() -> None:
    """Keep `apply` a subcommand even while it is the only one."""


@app.command()
def apply(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Create missing topics and compare the others with their specification.

    Never changes or deletes a topic. Exits with 1, before anything is created, if a topic differs in a setting that the
    guarantees need: number of partitions, clean-up policy, timestamp type, a record size below the relay's batches.
    Other differences are only reported.

    Example: `orgs topics apply --dry-run`
    """
    from org_service.kafka import topics

    settings = shell.quiet_settings()
    plans = shell.run(topics.plan(settings.kafka))
    _print(plans)
    shell.fail_if_harmful(plans, "nothing was created")
    missing = [plan for plan in plans if not plan.exists]
    if dry_run:
        shell.say(f"dry run: {len(missing)} to create")
        return
    if missing:
        shell.run(topics.create(settings.kafka, [plan.spec for plan in missing]))
        # Somebody else may have created one of them meanwhile, with settings of their own.
        shell.fail_if_harmful(shell.run(topics.plan(settings.kafka)), "another program created topics at the same time")
    shell.say(f"{len(missing)} created, {len(plans) - len(missing)} already exist")


def _print(plans: "list[TopicPlan]") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("topic", "partitions", "clean-up", "time", "what"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "topic")
    for plan in plans:
        config = plan.spec.config
        what = "" if plan.exists else "[green]create[/]"
        if plan.differences:
            what = "\n".join(
                f"[{'red' if each.harmful else 'yellow'}]{each.setting} is {each.found}, not {each.wanted}[/]"
                for each in plan.differences
            )
        table.add_row(
            plan.spec.name,
            str(plan.spec.partitions),
            config["cleanup.policy"],
            config["message.timestamp.type"],
            what or "as specified",
        )
    shell.out().print(table)
