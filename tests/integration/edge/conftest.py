"""One service for all tests of the edge that don't stop it: worker, relay and edge on a database of their own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.edge import People, Site
from tests.support.sites import running_site

Apart = Callable[[People, str], AbstractContextManager[Site]]


@pytest.fixture(scope="package")
def site_apart(server_url: str, bootstrap_servers: str, template_database: str) -> Apart:
    """Starts services, each on a database and topics of its own: `with site_apart(people, policy_file) as site`."""
    return lambda people, policy_file: running_site(
        server_url, bootstrap_servers, template_database, people, policy_file=policy_file
    )


# Not for the session: its threads draw random numbers, which Hypothesis forbids while it makes its own.
@pytest.fixture(scope="package")
def site(site_apart: Apart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running service. `root` is staff there."""
    with site_apart(People(tmp_path_factory.mktemp("issuer")), "") as started:
        yield started
