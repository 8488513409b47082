"""How everything is: what flows, who is behind, what is parked, what is proven."""

import time
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from org_service.console.charts import Chart, draw
from org_service.console.pages import page
from org_service.console.requests import ROOT
from org_service.console.sampling import HISTORY_S, Sample
from org_service.console.site import Site

SOON_S: Final = 24 * 3600.0
"""A loss that comes sooner is marked: there is a working day to do something."""


def make_router(site: Site) -> APIRouter:
    """The page, and the part of it that lives."""
    routes = APIRouter()

    @routes.get(ROOT)
    async def overview(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        return page(request, "overview", describe(site.sampler.samples(), site.settings.console.sample_interval_s))

    @routes.get(f"{ROOT}/live")
    async def live(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return page(request, "live", describe(site.sampler.samples(), site.settings.console.sample_interval_s))

    return routes


def describe(samples: Sequence[Sample], every_s: float) -> dict[str, Any]:
    """What the page shows of some looks, oldest first, asked again after so many seconds."""
    if not samples:
        return {"status": None, "every_s": 0.3}
    last = samples[-1]
    look, stored = last.status.look.found, last.status.stored.found
    return {
        "status": last.status,
        "every_s": every_s,
        "charts": _charts(samples),
        "groups": None if look is None else look.groups,
        "parked": None if stored is None else stored.parked,
        "runs": None if stored is None else stored.runs,
        "verified": _verified(last).partition(" "),
        "soon_s": SOON_S,
    }


def _charts(samples: Sequence[Sample]) -> list[Chart]:
    now_s = time.monotonic()

    def line(name: str, unit: str, field: str) -> Chart:
        points = [(now_s - each.at_s, getattr(each, field)) for each in samples]
        return draw(name, unit, points, width_s=HISTORY_S)

    return [
        line("Throughput", "commands a second", "per_second"),
        line("Not yet decided", "records", "undecided"),
        line("Not yet published", "positions", "unpublished"),
        line("Parked", "records", "parked"),
    ]


def _verified(last: Sample) -> str:
    """What the role `operate` says of its last verification; it alone knows."""
    health = last.status.health.get("operate")
    if health is None or health.found is None:
        return "unknown: no process of the role operate answers here"
    return health.found.checks.get("verified", "not verified here").removeprefix("not ok: ")
