"""A store that forgets: whoever keeps what it knows in memory loads again when it starts again."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

from org_events.subscribing.errors import Superseded
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, hash_keys


class MemoryStore:
    """Keeps everything in this process, some 150 bytes an organization. Its transactions hold nobody's work back."""

    def __init__(self) -> None:
        self._versions: dict[bytes, int] = {}
        self._marks: dict[int, Mark] = {}
        self._fences: dict[int, int] = {}
        self._parked: dict[tuple[bytes, int], Parked] = {}

    async def claim(self, partition: int, partitions: int) -> Claim:
        """See `Store.claim`."""
        fence = self._fences[partition] = self._fences.get(partition, 0) + 1
        parked = sorted(self._parked.values())
        hashes = hash_keys([each.key for each in parked])
        ours = [each for each, number in zip(parked, hashes, strict=True) if number % partitions == partition]
        return Claim(fence, dict(self._marks), ours)

    async def known(self, keys: Collection[bytes] | None, partition: int, partitions: int) -> dict[bytes, int]:
        """See `Store.known`."""
        versions = self._versions
        if keys is not None:
            return {key: versions[key] for key in keys if key in versions}
        everything = list(versions)
        hashes = hash_keys(everything)
        return {
            key: versions[key]
            for key, number in zip(everything, hashes, strict=True)
            if number % partitions == partition
        }

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[list[Progress]]:
        """See `Store.transaction`; there is nothing in it for the subscriber's own work."""
        session: list[Progress] = []
        yield session
        for progress in session:
            self._write(progress)

    async def save(self, session: list[Progress], progress: Progress) -> None:
        """See `Store.save`."""
        if self._fences.get(progress.partition) != progress.fence:
            raise Superseded(f"partition {progress.partition}")
        session.append(progress)

    def _write(self, progress: Progress) -> None:
        self._fences[progress.partition] += 1
        self._marks[progress.partition] = progress.mark
        self._versions.update(progress.versions)
        self._parked.update({(each.key, each.version): each for each in progress.parked})
        for each in progress.released:
            self._parked.pop(each, None)
