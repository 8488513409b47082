"""`docs/openapi.json`: what a running edge serves at `/openapi.json`, with the default settings."""

from org_events.schemas import to_text
from org_service.edge.edge import Edge
from org_service.settings import AuthSettings, Settings


def make_document() -> str:
    """The document as it is committed; nothing is started for it."""
    return to_text(Edge(Settings.model_construct(auth=AuthSettings())).app.openapi())
