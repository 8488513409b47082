"""`orgs topics`: create missing topics, compare existing ones, let them grow, accept what a stranger wrote."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import operations, shell

if TYPE_CHECKING:
    from org_service.kafka.topics import TopicPlan

app = typer.Typer(no_args_is_help=True, help="The topics: create, compare, grow, accept.")


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
    plans = shell.run(topics.plan(settings.kafka, settings.relay.name))
    _print(plans)
    shell.fail_if_harmful(plans, "nothing was created")
    missing = [plan for plan in plans if not plan.exists]
    if dry_run:
        shell.say(f"dry run: {len(missing)} to create")
        return
    if missing:
        shell.run(topics.create(settings.kafka, [plan.spec for plan in missing]))
        # Somebody else may have created one of them meanwhile, with settings of their own.
        shell.fail_if_harmful(
            shell.run(topics.plan(settings.kafka, settings.relay.name)),
            "another program created topics at the same time",
        )
    shell.say(f"{len(missing)} created, {len(plans) - len(missing)} already exist")


@app.command()
def grow(
    *,
    partitions: Annotated[int, typer.Option(min=2, help="Of each topic of organizations; a multiple of the present.")],
    leave_behind: Annotated[
        list[str] | None,
        typer.Option("--leave-behind", metavar="GROUP", help="Don't wait for this consumer group; may be repeated."),
    ] = None,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Add partitions to the topics of organizations: commands, results, events and state together, while all run.

    The relay pauses for some seconds, workers go on, nothing is restarted and no setting changes. Order per
    organization holds, for subscribers as docs/contract.md says. The run ends some 15 minutes later, when it has
    removed what moved organizations left behind on the state topic. Reference topics keep their partitions.

    Prints the plan and who reads the topics; --execute does it.

    Example: `orgs topics grow --partitions 24`
    """
    from org_service.operate.grow_topics import GrowTopics

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: GrowTopics.make(settings, partitions, leave_behind or []),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


@app.command()
def accept(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Accept what a foreign program wrote on the relay's topics: lets the relay, which stopped at it, go on.

    Stop that program first. The records stay where they are, and subscribers got them; what the relay publishes from
    here on follows behind. Exits with 1 where there is nothing to accept.

    Prints the plan, which lists the records; --execute does it.

    Example: `orgs topics accept`
    """
    from org_service.operate.accept_writes import AcceptWrites

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: AcceptWrites.make(settings),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


def _print(plans: "list[TopicPlan]") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("topic", "partitions", "clean-up", "time", "what"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "topic")
    for plan in plans:
        config = plan.spec.config
        what = Text("as specified") if plan.exists else Text("create", "green")
        if plan.differences:
            what = Text("\n").join(
                Text(f"{each.setting} is {each.found}, not {each.wanted}", "red" if each.harmful else "yellow")
                for each in plan.differences
            )
        table.add_row(
            plan.spec.name,
            str(plan.spec.partitions),
            config["cleanup.policy"],
            config["message.timestamp.type"],
            what,
        )
    shell.out().print(table)
