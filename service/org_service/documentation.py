"""The reference pages of `docs/`, made from the code by `python -m org_service.documentation`.

`settings.md` and `metrics.md` are made whole; of `contract.md` the tables between its markers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast, get_args, get_origin

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from org_service import contract_tables
from org_service.settings import Settings, as_text
from org_service.telemetry import metrics

_DOCS: Final = Path(__file__).parents[2] / "docs"


def settings_page() -> str:
    """Every setting as a Markdown page: variable, default, bounds, what it is for."""
    lines = [
        "# Settings",
        "",
        "Made from `org_service/settings` by `python -m org_service.documentation`. `orgs config show` prints the",
        "values in force. An unknown name with `__` in it is refused at start.",
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
    bounds = {
        name: getattr(each, name) for each in field.metadata for name in ("gt", "ge", "le") if hasattr(each, name)
    }
    low = f"> {bounds['gt']}" if "gt" in bounds else f"≥ {bounds['ge']}" if "ge" in bounds else ""
    high = f"≤ {bounds['le']}" if "le" in bounds else ""
    return ", ".join(part for part in (low, high) if part)


def metrics_page() -> str:
    """Every metric as a Markdown page: name, kind, labels, meaning."""
    lines = [
        "# Metrics",
        "",
        "Made from `org_service/telemetry/metrics.py` by `python -m org_service.documentation`. Served at `/metrics`",
        "of each role's port; the usual metrics of the process (`process_*`, `python_*`) are there too.",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            described = next(iter(metric.describe()))
            name = f"{described.name}{'_total' if isinstance(metric, Counter) else ''}"
            of = cast("tuple[str, ...]", metric._labelnames)  # pyright: ignore[reportPrivateUsage]
            labels = ", ".join(f"`{label}`" for label in of)
            lines.append(f"| `{name}` | {described.type} | {labels} | {described.documentation} |")
    return "\n".join(lines) + "\n"


def contract_page() -> str:
    """The contract, with its tables as the code has them now."""
    return contract_tables.filled((_DOCS / "contract.md").read_text(encoding="utf-8"))


PAGES: Final = {"settings.md": settings_page, "metrics.md": metrics_page, "contract.md": contract_page}


def main() -> None:
    """Write the pages into the checkout's `docs/`."""
    for name, page in PAGES.items():
        (_DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
