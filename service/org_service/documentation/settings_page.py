"""`docs/settings.md`: every setting."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from org_service.settings import Settings, as_text


def make_settings_page() -> str:
    """Every setting as a Markdown page: variable, default, bounds, what it is for."""
    lines = [
        "# Settings",
        "",
        "Made from `org_service/settings` by `make generate`. `orgs config show` prints the values in force.",
        "No process starts with an unknown name that has `__` in it.",
        "",
        "| variable | default | bounds | what for |",
        "| --- | --- | --- | --- |",
        *_rows(Settings, "ORGS_"),
    ]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _rows(kind, f"{variable}__")
        else:
            yield f"| `{variable}` | {_default(field)} | {_bounds(field)} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    shown = value.get_secret_value() if isinstance(value, SecretStr) else as_text(value)
    return f"`{shown}`" if shown else ""


def _bounds(field: FieldInfo) -> str:
    kind = get_args(field.annotation)[0] if get_origin(field.annotation) is tuple else field.annotation
    choices = get_args(kind)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds: list[str] = []
    for each in field.metadata:
        match each:
            case Gt():
                bounds.append(f"> {each.gt}")
            case Ge():
                bounds.append(f"≥ {each.ge}")
            case Le():
                bounds.append(f"≤ {each.le}")
            case _:  # a length, or how it is read
                pass
    return ", ".join(bounds)
