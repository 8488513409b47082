"""`docs/metrics.md`: every metric."""

from typing import cast

from prometheus_client import Counter, Gauge, Histogram

from org_service.telemetry import metrics


def make_metrics_page() -> str:
    """Every metric as a Markdown page: name, kind, labels, meaning."""
    lines = [
        "# Metrics",
        "",
        "Made from `org_service/telemetry/metrics.py` by `make generate`. Served at `/metrics` of each role's port;",
        "the usual metrics of the process (`process_*`, `python_*`) are there too.",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            described = next(iter(metric.describe()))
            name = f"{described.name}_total" if isinstance(metric, Counter) else described.name
            # A metric without values describes no labels, and says them nowhere else.
            label_names = cast("tuple[str, ...]", metric._labelnames)  # pyright: ignore[reportPrivateUsage]
            labels = ", ".join(f"`{label}`" for label in label_names)
            lines.append(f"| `{name}` | {described.type} | {labels} | {described.documentation} |")
    return "\n".join(lines) + "\n"
