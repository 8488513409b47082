"""The HTML page of the contract: all that is promised is on it, and it fetches nothing."""

from html.parser import HTMLParser
from typing import Any

import pytest

from tests.contract.events.described import DOCUMENT, FILE

pytestmark = pytest.mark.contract

PAGE = FILE.with_name("contract.html").read_text(encoding="utf-8")
FETCHING = {"src", "srcset", "href", "data", "poster", "action", "style", "background"}


class Page(HTMLParser):
    """Ids, links, tags and cells of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.texts: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links |= {value for name, value in attrs if name in FETCHING}

    def handle_data(self, data: str) -> None:
        self.texts.add(data.strip())


READ = Page()
READ.feed(PAGE)


def test_it_fetches_nothing_and_runs_nothing() -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & READ.tags
    assert all(link.startswith("#") for link in READ.links)
    assert "url(" not in PAGE
    assert "@import" not in PAGE


def test_every_link_leads_to_one_place() -> None:
    assert len(READ.ids) == len(set(READ.ids))
    assert {link[1:] for link in READ.links} <= {*READ.ids}


def test_everything_that_is_promised_is_on_it() -> None:
    channels, components = DOCUMENT["channels"].values(), DOCUMENT["components"]
    assert {channel["address"] for channel in channels} <= {*READ.ids}
    assert {*components["messages"], *components["schemas"]} <= {*READ.ids}
    headers = {name for message in components["messages"].values() for name in message["headers"]["properties"]}
    members = {name for schema in components["schemas"].values() for name in schema.get("properties", {})}
    values = {value for schema in components["schemas"].values() for value in schema.get("enum", ())}
    assert headers | members | values <= READ.texts
