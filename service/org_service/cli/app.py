"""The tree of commands, and the one place where expected trouble becomes a line and an exit code."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from org_service.cli import (
    applying,
    config,
    console,
    doctor,
    drill,
    erasing,
    exporting,
    journal,
    look,
    marking,
    mcp,
    offsets,
    operations,
    parked,
    replay,
    restoring,
    roles,
    send,
    serve,
    status,
    tail,
    token,
    topics,
    trace,
    undo,
    up,
    verifying,
)
from org_service.cli.shell import CLOSED, OutputClosed, fail, let_go_of_output

SECTIONS: Final[Mapping[str, Sequence[str]]] = {
    "Run the service": ("up", "roles", "serve", "mcp", "migrate", "topics", "config", "token", "console"),
    "Prove": ("doctor", "verify", "repair", "drill"),
    "Send and look": ("status", "send", "show", "history", "trace", "diff", "tail", "export", "lost"),
    "Operate: a plan first, then exactly that": (
        "parked", "replay", "undo", "apply", "import", "erase", "purge", "mark", "marks", "offsets", "runs", "run",
        "approve",
    ),
    "After a loss": ("rebuild", "recover", "journal"),
}  # fmt: skip
"""Of the help; each command once."""


class _CommandGroup(TyperGroup):
    """Ends expected trouble in one clear line; defects keep their traceback. Its help has sections."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, section by section."""
        del ctx
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See that what was typed is text: neither JSON nor the database has anything else."""
        for each in args:
            if not each.isascii() and each != each.encode(errors="replace").decode():
                raise typer.BadParameter(f"{each!a} is not UTF-8")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except OutputClosed:
            let_go_of_output()
            raise typer.Exit(CLOSED) from None
        except Exception as error:
            from org_service.cli.trouble import explain

            trouble = explain(error)
            if trouble is None:
                raise
            fail(*trouble)


app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run and use the organization service.\n\n`ORGS_KAFKA__BOOTSTRAP_SERVERS` and `ORGS_DATABASE__URL` say "
    "where Kafka and Postgres are. Settings that are not in the\nenvironment are read from "
    "`.local/stack.env`, which `orgs up` writes: in another terminal of the same folder every\ncommand "
    "finds the local stack by itself.\n\nExit codes: 0 done, 1 rejected, 2 usage error, 3 no answer "
    "(retrying is safe), 130 ended by ^C, 141 output pipe closed.\n",
)
app.command("up", short_help="Start everything on this machine: servers and all roles.")(up.up)
app.add_typer(roles.app, name="roles")
app.add_typer(send.app, name="send")
app.command("import", short_help="Create the organizations of a file.")(applying.import_file)
app.command("apply", short_help="Make organizations what a file says of them.")(applying.apply)
app.command("export", short_help="Write all organizations as of one moment.")(exporting.export)
app.command("status", short_help="Show on one screen how everything is.")(status.status)
app.command("tail")(tail.tail)
app.command("show")(look.show)
app.command("history", short_help="Show an organization's changes, oldest first.")(look.history)
app.command("trace", short_help="Follow a command, hop by hop.")(trace.trace)
app.command("diff", short_help="Compare all organizations at two moments.")(look.diff)
app.add_typer(parked.app, name="parked")
app.command("lost", short_help="List commands that Kafka lost before a worker read them.")(look.lost)
app.command("token", short_help="Print a user's token, signed by the local issuer.")(token.token)
app.command("console", short_help="Print a link to the operators' page.")(console.console)
app.command("mcp", short_help="Serve MCP over standard input and output.")(mcp.mcp)
app.command("serve", short_help="Run roles: worker, relay, edge, operate.")(serve.serve)
app.command("migrate")(serve.migrate)
app.add_typer(topics.app, name="topics")
app.command("verify", short_help="Prove that tables and topics tell the same.")(verifying.verify)
app.command("repair", short_help="Mend what `orgs verify` finds, and nothing else.")(verifying.repair)
app.command("doctor", short_help="Check the guarantees against live settings.")(doctor.doctor)
app.command("drill", short_help="Practise: plant an incident on the local stack, and mend it.")(drill.drill)
app.command("rebuild", short_help="Write a lost database again from the topics.")(restoring.rebuild)
app.command("recover", short_help="Bring a restored backup forward from the topics.")(restoring.recover)
app.add_typer(journal.app, name="journal")
app.add_typer(replay.app, name="replay")
app.command("undo", short_help="Take changes back: of a run, an actor, a time, a publisher.")(undo.undo)
app.command("erase", short_help="Erase a deleted organization for good; --status says what is left.")(erasing.erase)
app.command("purge", short_help="Erase all organizations whose grace is over.")(erasing.purge)
app.command("mark", short_help="Give now a name, for the filters of other commands.")(marking.mark)
app.add_typer(marking.app, name="marks")
app.add_typer(offsets.app, name="offsets")
app.add_typer(operations.app, name="runs")
app.command("run", short_help="Run a plan, or resume a run.")(operations.run_operation)
app.command("approve", short_help="Approve a plan, as a second person.")(operations.approve)
app.add_typer(config.app, name="config")
