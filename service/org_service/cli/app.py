"""The tree of commands, and the one place where expected trouble becomes a line and an exit code."""

from typing import Any

import typer
from typer.core import TyperGroup

from org_service.cli import (
    applying,
    config,
    exporting,
    journal,
    look,
    marking,
    mcp,
    operations,
    parked,
    replay,
    send,
    serve,
    tail,
    token,
    topics,
    undo,
    up,
)
from org_service.cli.shell import CLOSED, OutputClosed, fail, let_go_of_output


class _CommandGroup(TyperGroup):
    """Ends expected trouble in one clear line; defects keep their traceback."""

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
app.command("up")(up.up)
app.add_typer(send.app, name="send")
app.command("import")(applying.import_file)
app.command("apply")(applying.apply)
app.command("export")(exporting.export)
app.command("tail")(tail.tail)
app.command("show")(look.show)
app.command("history")(look.history)
app.add_typer(parked.app, name="parked")
app.command("lost")(look.lost)
app.command("token")(token.token)
app.command("mcp")(mcp.mcp)
app.command("serve")(serve.serve)
app.command("migrate")(serve.migrate)
app.add_typer(topics.app, name="topics")
app.add_typer(journal.app, name="journal")
app.add_typer(replay.app, name="replay")
app.command("undo")(undo.undo)
app.command("mark")(marking.mark)
app.add_typer(marking.app, name="marks")
app.add_typer(operations.app, name="runs")
app.command("run")(operations.run_operation)
app.command("approve")(operations.approve)
app.add_typer(config.app, name="config")
