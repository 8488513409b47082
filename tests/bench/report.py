"""The figures for people and for programs."""

from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

_LATENCIES: Final = ("latency_idle", "latency_load")
_REQUESTS: Final = ("edge_read", "http_update")
_FILE_WIDTH: Final = 130


def for_results() -> Console:
    """Standard output; as wide as the tables need where it isn't a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_FILE_WIDTH)


def render(report: dict[str, Any], console: Console) -> None:
    """Print tables."""
    machine, versions, postgres = report["machine"], report["versions"], report["durability"]["postgres"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"load before {machine['load_before']}, a synced write takes {machine['fsync_ms']} ms"
    )
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    settings = ", ".join(f"{name} {setting}" for name, setting in postgres.items())
    console.print(f"Postgres: {settings}\nKafka: {report['durability']['kafka']}\n")
    scenarios = report["scenarios"]
    throughputs = [name for name in scenarios if name not in (*_LATENCIES, *_REQUESTS)]
    if throughputs:
        console.print(_throughput_table(scenarios, throughputs))
    latencies = [name for name in _LATENCIES if name in scenarios]
    if latencies:
        console.print(_latency_table(scenarios, latencies))
    requests = [name for name in _REQUESTS if name in scenarios]
    if requests:
        console.print(_requests_table(scenarios, requests))
    console.print("processor time a command or request, in µs; publisher, reader and load are the bench's own")
    for name, scenario in scenarios.items():
        cpu_us = scenario["cpu_us_per_request" if name in _REQUESTS else "cpu_us_per_command"]
        console.print(f"  {name}: " + ", ".join(f"{process} {each:,.0f}" for process, each in cpu_us.items()))


def _throughput_table(scenarios: dict[str, Any], names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="command published → event read", title_justify="left", pad_edge=False)
    for heading in ("", "commands", "commands/s", "each run", "end_to_end is"):
        table.add_column(heading, justify="right" if heading else "left")
    ratios = scenarios.get("end_to_end", {})
    for name in names:
        scenario = scenarios[name]
        ratio = ratios.get(f"ratio_to_{name}")
        table.add_row(
            name,
            f"{scenario['commands']:,}",
            f"[bold]{scenario['commands_per_s']:,.0f}[/]",
            "  ".join(f"{run['commands_per_s']:,.0f}" for run in scenario["runs"]),
            "" if ratio is None else f"{ratio} x",
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


def _requests_table(scenarios: dict[str, Any], names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="HTTP request due → answer read", title_justify="left", pad_edge=False)
    for heading in ("", "requests/s", "p50 ms", "p99 ms", "max ms", "each run: p50 / p99 / max ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in names:
        scenario = scenarios[name]
        runs = "   ".join(f"{run['p50_ms']} / {run['p99_ms']} / {run['max_ms']}" for run in scenario["runs"])
        table.add_row(name, f"{scenario['rate_per_s']:,.0f}", *_bold(scenario), runs)
        for kind, figures in scenario["kinds"].items():
            table.add_row(f"  {kind}", "", f"{figures['p50_ms']}", f"{figures['p99_ms']}", f"{figures['max_ms']}", "")
    return table


def _bold(figures: dict[str, Any]) -> list[str]:
    return [f"[bold]{figures['p50_ms']}[/]", f"[bold]{figures['p99_ms']}[/]", f"{figures['max_ms']}"]
