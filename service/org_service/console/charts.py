"""Lines over time, as coordinates of an SVG: no script draws them, and no style is inline. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

WIDTH: Final = 300.0
HEIGHT: Final = 64.0


class Chart(NamedTuple):
    """A line, and what is said of it."""

    name: str
    unit: str
    now: str
    """The last value, as text; `unknown` where the last look could not see it."""
    most: str
    line: str
    """Points of a polyline."""
    area: str
    """The same, closed along the bottom."""


def draw(
    name: str,
    unit: str,
    points: Sequence[tuple[float, float | None]],
    *,
    width_s: float,
) -> Chart:
    """Draw a line that ends now, on the right.

    Args:
        name: What it shows.
        unit: Of its values.
        points: Seconds ago and value, oldest first; None where it was not known.
        width_s: Seconds from the left edge to the right.
    """
    known = [(ago_s, number) for ago_s, number in points if number is not None]
    if not known:
        return Chart(name, unit, "unknown", "", "", "")
    most = max(number for _, number in known)
    top = max(1.0, most)
    placed = [
        (WIDTH * (1 - min(1.0, ago_s / width_s)), HEIGHT - number / top * (HEIGHT - 2) - 1) for ago_s, number in known
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    area = f"{placed[0][0]:.1f},{HEIGHT:.0f} {line} {placed[-1][0]:.1f},{HEIGHT:.0f}"
    last = points[-1][1]
    return Chart(name, unit, "unknown" if last is None else f"{last:,.0f}", f"{most:,.0f}", line, area)
