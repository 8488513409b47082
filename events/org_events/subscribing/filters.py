"""Which changes a subscriber is handed. What it doesn't want counts as handled."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from org_events.subscribing.changes import Change


class Filter(NamedTuple):
    """What holds for the changes that are wanted; all of it.

    A change from `orgs.state` (`Kind.LOADED`, `Kind.GONE`) may stand for any others, so types and fields let it pass.
    """

    types: Collection[str] | None = None
    """Event types, as `org.updated`."""
    fields: Collection[str] | None = None
    """Of which one changed at least: names in `org_events.subscribing.FIELDS`."""
    where: Callable[[Change[Any]], bool] | None = None
    """What it may ask of the change is free."""

    def wants(self, change: Change[Any]) -> bool:
        """Whether a change is handed out."""
        if self.types is not None and change.type is not None and change.type not in self.types:
            return False
        if self.fields is not None and change.changed.isdisjoint(self.fields):
            return False
        return self.where is None or self.where(change)
