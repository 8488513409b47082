"""`orgs config`: every setting, where its value comes from, and what it means."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PREFIX: Final = "ORGS_"
TABLE_COLUMNS_MIN: Final = 100
"""On a narrower terminal names alone would fill the table: then it is lines."""

app = typer.Typer(no_args_is_help=True, help="The settings.")


class Setting(NamedTuple):
    """One setting as it is now."""

    name: str
    """Of its environment variable."""
    value: str
    """As text; a secret is masked."""
    default: str
    source: str
    """`environment`, `.local/stack.env` or `default`."""
    description: str

    @property
    def what(self) -> str:
        """The description, and the default where it isn't in force."""
        default = "" if self.source == "default" else f" (default {self.default or 'empty'})"
        return (self.description + default).strip()

    @property
    def style(self) -> str:
        """Of the value: what was set stands out."""
        return "" if self.source == "default" else "bold"


@app.callback()
def group() -> None:
    """Keep `show` a subcommand even while it is the only one."""


@app.command()
def show(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show every setting: its environment variable, value, source and meaning. Secrets are masked.

    The environment comes first, then `.local/stack.env`, then the default.

    Example: `ORGS_KAFKA__PARTITIONS=24 orgs config show`
    """
    settings = list(read())
    if as_json:
        shell.write_json([setting._asdict() for setting in settings])
        return
    if shell.out().width < TABLE_COLUMNS_MIN:
        _print_lines(settings)
    else:
        _print_table(settings)


def _print_table(settings: list[Setting]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("what", style="dim")
    for setting in settings:
        table.add_row(setting.name, Text(setting.value, setting.style), setting.source, Text(setting.what))
    shell.out().print(table, soft_wrap=False)


def _print_lines(settings: list[Setting]) -> None:
    from rich.text import Text

    for setting in settings:
        shell.out().print(
            Text.assemble(f"{setting.name} = ", (setting.value, setting.style), (f"  {setting.source}", "dim"))
        )
        if setting.what:
            shell.out().print(Text(f"  {setting.what}", "dim"))


def read() -> Iterator[Setting]:
    """Every setting, in the order of the declaration.

    Raises:
        pydantic.ValidationError: A value is wrong.
    """
    yield from _walk(shell.load_settings(), PREFIX, set(shell.stack_env()))


def _walk(group: "BaseModel", prefix: str, in_file: set[str]) -> Iterator[Setting]:
    from pydantic import BaseModel

    for field, info in type(group).model_fields.items():
        content = getattr(group, field)
        name = f"{prefix}{field.upper()}"
        if isinstance(content, BaseModel):
            yield from _walk(content, f"{name}__", in_file)
        else:
            source = _source(name, in_file)
            yield Setting(name, _text(field, content), _text(field, _default(info)), source, info.description or "")


def _source(name: str, in_file: set[str]) -> str:
    """Where a variable comes from; the environment goes before the file of the local stack."""
    if _in_environment(name):
        return "environment"
    return str(shell.STACK_ENV) if name in in_file else "default"


def _default(info: "FieldInfo") -> Any:
    return info.get_default(call_default_factory=True, validated_data={})


def _text(field: str, content: Any) -> str:
    from pydantic import SecretStr

    from org_service.cli.trouble import MASK, masked_url
    from org_service.settings import as_text

    if not isinstance(content, SecretStr):
        return as_text(content)
    secret = content.get_secret_value()
    if field == "url":
        return masked_url(secret)
    return MASK if secret else ""


def _in_environment(name: str) -> bool:
    """Whether the environment sets it; names count in either case, as pydantic-settings reads them."""
    return any(variable.upper() == name for variable in os.environ)
