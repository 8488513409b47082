import pytest


@pytest.fixture(autouse=True)
def _no_existing_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests start their own servers, whatever the session uses."""
    monkeypatch.delenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("ORGS_DATABASE__URL", raising=False)
