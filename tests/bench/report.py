"""The figures for people and for programs."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_LATENCIES = ("latency_idle", "latency_load")


def render(report: dict[str, Any], console: Console) -> None:
    """Print tables."""
    machine, versions, postgres = report["machine"], report["versions"], report["durability"]["postgres"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"load before {machine['load_before']}, a synced write takes {machine['fsync_ms']} ms"
    )
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    settings = ", ".join(f"{name} {setting}" for name, setting in postgres.items())
    console.print(f"Postgres: {settings}; Kafka: {report['durability']['kafka']}")
    scenarios = report["scenarios"]
    throughputs = [name for name in scenarios if name not in _LATENCIES]
    if throughputs:
        console.print(_throughput_table(scenarios, throughputs))
    latencies = [name for name in _LATENCIES if name in scenarios]
    if latencies:
        console.print(_latency_table(scenarios, latencies))


def _throughput_table(scenarios: dict[str, Any], names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="command published → event read", title_justify="left", pad_edge=False)
    for heading in ("", "commands", "commands/s", "each run", "end_to_end is", "CPU µs a command"):
        table.add_column(heading, justify="left" if heading in {"", "CPU µs a command"} else "right")
    ratios = scenarios.get("end_to_end", {})
    for name in names:
        scenario = scenarios[name]
        ratio = ratios.get(f"ratio_to_{name}")
        cpu = scenario["runs"][-1]["cpu_us_per_command"]
        table.add_row(
            name,
            f"{scenario['commands']:,}",
            f"[bold]{scenario['commands_per_s']:,.0f}[/]",
            "  ".join(f"{run['commands_per_s']:,.0f}" for run in scenario["runs"]),
            "" if ratio is None else f"{ratio} x",
            "  ".join(f"{process} {microseconds:,.0f}" for process, microseconds in cpu.items()),
        )
    return table


def _latency_table(scenarios: dict[str, Any], names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="command produced → result read", title_justify="left", pad_edge=False)
    for heading in ("", "commands/s", "commands", "p50 ms", "p99 ms", "each run: p50 / p99 / max ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in names:
        scenario = scenarios[name]
        table.add_row(
            name,
            f"{scenario['rate_per_s']:,.0f}",
            f"{scenario['commands']:,}",
            f"[bold]{scenario['p50_ms']}[/]",
            f"[bold]{scenario['p99_ms']}[/]",
            "   ".join(f"{run['p50_ms']} / {run['p99_ms']} / {run['max_ms']}" for run in scenario["runs"]),
        )
    return table
