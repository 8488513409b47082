"""Kafka's jars are whole or not there."""

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from org_local import KafkaJarsUnavailableError, jars

pytestmark = pytest.mark.integration

CLOSED = "http://127.0.0.1:9"
"""A proxy that isn't there: every request fails at once."""


class FakeArtifact:
    """Stands for one of Maven's jars."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resolve(self) -> Path:
        path = self.folder / "fake.jar"
        path.write_bytes(b"a jar")
        return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, CLOSED)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "org-local"


def expect_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = hashlib.sha256(b"a jar").hexdigest() + "  fake.jar\n"
    monkeypatch.setattr(jars, "_DIGEST", hashlib.sha256(listing.encode()).hexdigest())


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name != "fetch.lock"]


def test_without_network_the_error_says_what_to_do(cache: Path) -> None:
    with pytest.raises(KafkaJarsUnavailableError) as caught:
        jars.ensure(lambda _: None)

    message = str(caught.value)
    assert "Kafka 4.3.1 is not in" in message
    assert "Run once with access to Maven Central" in message
    assert "ORGS_KAFKA__BOOTSTRAP_SERVERS" in message
    assert leftovers(cache) == []


def test_a_changed_jar_is_rejected_and_not_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "_resolve", lambda _: [FakeArtifact(tmp_path)])

    with pytest.raises(KafkaJarsUnavailableError, match="have the digest"):
        jars.ensure(lambda _: None)

    assert leftovers(cache) == []


def test_two_concurrent_programs_fetch_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []

    def resolve(_: object) -> list[FakeArtifact]:
        resolved.append("once")
        return [FakeArtifact(tmp_path)]

    expect_the_fake(monkeypatch)
    monkeypatch.setattr(jars, "_resolve", resolve)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(jars.ensure, [lambda _: None] * 2)

    assert first == second
    assert [path.name for path in first.iterdir()] == ["fake.jar"]
    assert resolved == ["once"]


def test_an_interrupted_fetch_is_repeated_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = cache / "fetch-killed" / "jars"
    half.mkdir(parents=True)
    (half / "fake.jar").write_bytes(b"a j")
    expect_the_fake(monkeypatch)
    monkeypatch.setattr(jars, "_resolve", lambda _: [FakeArtifact(tmp_path)])

    folder = jars.ensure(lambda _: None)

    assert (folder / "fake.jar").read_bytes() == b"a jar"
    assert leftovers(cache) == [folder.name]


def test_a_full_disk_is_not_taken_for_a_lack_of_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_: Path) -> list[FakeArtifact]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jars, "_resolve", fill)

    with pytest.raises(
        KafkaJarsUnavailableError, match=r"cannot be stored in .*: .*No space left on device\nFree space"
    ):
        jars.ensure(lambda _: None)

    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "file"))

    with pytest.raises(
        KafkaJarsUnavailableError, match=r"(?s)cannot be stored in .*/file/org-local: .*set JGO_CACHE_DIR"
    ):
        jars.ensure(lambda _: None)
