"""Kafka's jars: fetched once by jgo, checked, then kept in jgo's cache folder.

jgo's own environment (`jgo.build`) isn't used: it downloads straight to the final names, so that a fetch that is
interrupted leaves a truncated jar, or half a class path, which counts as complete forever after; and it reports a
wrong checksum but continues. Here everything is fetched to a temporary folder, compared with the digest below and
renamed into place, under a lock for the case that two programs start at once. Cost: jars that are in a Maven
repository on this machine are fetched again.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from org_local.errors import KafkaJarsUnavailableError

if TYPE_CHECKING:
    from jgo.maven import Artifact

VERSION = "4.3.1"
_ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
"""slf4j-simple gives Kafka a log; without a binding it says nothing, not even why it ends."""
_DIGEST = "9b241538730d32e890117f2362eee3ff6ed60f753d73e6a46652b547a64df32f"
"""SHA-256 of what `sha256sum *.jar` prints in the folder; Maven versions are immutable, so it can't change."""
_DOWNLOADS_AT_ONCE = 4
_FETCH_PREFIX = "fetch-"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}


def ensure(progress: Callable[[str], None]) -> Path:
    """The folder with Kafka's jars, fetched if it does not exist. May run in several processes at once.

    Raises:
        KafkaJarsUnavailableError: they can't be fetched, or aren't what they should be; nothing is kept then.
    """
    cache = Path(os.environ.get("JGO_CACHE_DIR", "~/.cache/jgo")).expanduser() / "org-local"
    folder = cache / f"kafka-{VERSION}-{_DIGEST[:12]}"
    if folder.exists():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "fetch.lock", progress):
            if not folder.exists():
                for interrupted in cache.glob(f"{_FETCH_PREFIX}*"):  # nobody's, as we hold the lock
                    shutil.rmtree(interrupted, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_FETCH_PREFIX, dir=cache) as fresh:
                    _fetch(Path(fresh), progress)
                    (Path(fresh) / "jars").rename(folder)
    except OSError as error:
        raise KafkaJarsUnavailableError(
            f"Kafka {VERSION} (45 MB) cannot be stored in {cache}: {error}\nFree space or fix permissions there, "
            "or set JGO_CACHE_DIR to another folder."
        ) from error
    return folder


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Generator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another program is fetching Kafka {VERSION}, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path, progress: Callable[[str], None]) -> None:
    progress(f"fetching Kafka {VERSION}: resolving its jars, once")
    jars = folder / "jars"
    jars.mkdir()
    logging.getLogger("jgo").setLevel(logging.ERROR)
    try:
        artifacts = _resolve(folder / "repository")
        progress(f"fetching Kafka {VERSION}: {len(artifacts)} jars (45 MB), once")
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            for done, path in enumerate(pool.map(lambda each: each.resolve(), artifacts), start=1):
                shutil.move(path, jars / path.name)
                if done % 10 == 0:
                    progress(f"fetching Kafka {VERSION}: {done} of {len(artifacts)} jars")
    except Exception as error:  # jgo's errors are of many kinds: requests', RuntimeError, ValueError
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:  # requests' are OSErrors without a number
            raise
        raise KafkaJarsUnavailableError(
            f"Kafka {VERSION} is not in {folder.parent} and could not be fetched from Maven Central: {error}\nRun "
            "once with access to Maven Central (HTTPS_PROXY is respected), or set ORGS_KAFKA__BOOTSTRAP_SERVERS "
            "to an existing broker."
        ) from error
    digest = _digest(jars)
    if digest != _DIGEST:
        raise KafkaJarsUnavailableError(
            f"the jars fetched for Kafka {VERSION} have the digest {digest}, not {_DIGEST}: "
            "a file went missing on the way (jgo goes on without it), or something between here and Maven Central "
            "changes files. Nothing was kept; try again, or from another network."
        )


def _resolve(repository: Path) -> "list[Artifact]":
    from jgo import constants, maven, parse  # noqa: PLC0415 (takes longer than a start that finds the jars there)

    context = maven.MavenContext(repo_cache=repository, remote_repos={"central": constants.MAVEN_CENTRAL_URL})
    coordinates = [replace(each, scope="compile") for each in parse.Endpoint.parse(_ENDPOINT).coordinates]
    wanted, transitive = context.resolver.resolve([context.create_dependency(each) for each in coordinates])
    needed = [*wanted, *(each for each in transitive if each.scope in {"compile", "runtime"})]
    return [each.artifact for each in needed]


def _digest(folder: Path) -> str:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.jar"))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
