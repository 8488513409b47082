"""A database, its topics, a publisher and the service's processes: what a storm needs, and whether it is over."""

import asyncio
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from org_service.settings import Settings
from tests.support.checker import judge
from tests.support.findings import Findings
from tests.support.observed import LOG_LEVEL, Observed, Record, TopicReader, is_of_replay, observe
from tests.support.outgoing import relay_position
from tests.support.processes import Role, ServiceProcess
from tests.support.published import Published
from tests.support.record_transactions import Place
from tests.support.sending import Publisher, Sending
from tests.support.waiting import wait_for

ANSWER_TIMEOUT_S = 20


class System:
    """Owns processes and connections; all are closed at the end, whatever happened."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.topics = settings.kafka.topics
        self.database_url = settings.database.url.get_secret_value()
        servers = settings.kafka.bootstrap_servers
        self.publisher = Publisher(servers, self.topics.commands)
        self.processes: list[ServiceProcess] = []
        self._reader = TopicReader(servers)
        # It asks for offsets and never joins the group. (librdkafka's admin client would end the whole process by
        # SIGSEGV when the group's coordinator has moved: https://github.com/confluentinc/librdkafka/issues/5040)
        group = f"{settings.kafka.topic_prefix}{settings.worker.group_id}"
        self._group = Consumer({"bootstrap.servers": servers, "group.id": group, "log_level": LOG_LEVEL})
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None
        self._relay_since: dict[Place, int] = {}
        self._relay_position = 0
        self.blind: Container[tuple[str, int, int]] = ()
        """Records whose headers the checker's client can't show."""

    def __enter__(self) -> Self:
        self._connection = self._runner.run(asyncpg.connect(self.database_url))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.close()
        self.publisher.close()
        self._reader.close()
        self._group.close()
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()

    def add(self, role: Role, name: str | None = None) -> ServiceProcess:
        """Start a worker or a relay."""
        process = ServiceProcess(role, self.settings, self.folder, name)
        self.processes.append(process)
        process.start()
        return process

    def head(self) -> int:
        """The last position in the journal."""
        assert self._connection is not None
        return int(self._runner.run(self._connection.fetchval("SELECT position FROM journal_head")) or 0)

    def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database."""
        assert self._connection is not None
        return self._runner.run(self._connection.fetch(statement, *arguments))

    def relay_position(self) -> int:
        """The last position published, as a `read_committed` reader sees it."""
        found, self._relay_since = self._reader.read((self.topics.relay,), self._relay_since)
        if own := [record for record in found[self.topics.relay] if not is_of_replay(record)]:
            self._relay_position = relay_position(own[-1])
        return self._relay_position

    def all_in_sync(self) -> bool:
        """Whether every partition has all its copies in sync, those of Kafka's own topics too."""
        topics = self._group.list_topics(timeout=ANSWER_TIMEOUT_S).topics.values()
        return all(len(each.isrs) == len(each.replicas) for topic in topics for each in topic.partitions.values())

    def settle(self, timeout_s: float, *, exactly: bool = False) -> None:
        """Wait until every record was acknowledged by the workers' group, and the relay has published all.

        Args:
            timeout_s: For each of the two.
            exactly: The log of commands was cut: an offset of the group that is beyond its end is one of before that.

        Raises:
            TimeoutError: Something hangs.
        """
        self.publisher.flush()
        wanted: Counter[int] = Counter()
        for record in self.publisher.records:
            wanted[record.partition] = max(wanted[record.partition], record.offset + 1)
        wait_for(lambda: self._are_acknowledged(wanted, exactly), "end of the workers' work", timeout_s, 0.1)
        wait_for(lambda: self.relay_position() == self.head(), "end of the relay's work", timeout_s, 0.1)

    def read_on(self, topic: str, since: Mapping[Place, int]) -> tuple[list[Record], dict[Place, int]]:
        """What a topic holds from some offsets on, and where it goes on after that."""
        found, since = self._reader.read((topic,), since)
        return found[topic], since

    def observe(self) -> Observed:
        """Everything that is there now."""
        self._reader.blind = self.blind
        observed = observe(self._reader, self.database_url, self.topics)
        observed.parked = [row for row in observed.parked if row["topic"] == self.topics.commands]
        return observed

    def check(
        self,
        observed: Observed | None = None,
        published: Sequence[Published] | None = None,
        *,
        kafka_was_away: bool = False,
        kafka_lost: bool = False,
    ) -> Findings:
        """Judge everything that happened.

        Args:
            observed: If somebody has looked already.
            published: What the publisher wrote down, if not just that.
            kafka_was_away: Then nobody knows how often the workers got the same record.
            kafka_lost: Kafka lost records that it had acknowledged.
        """
        return judge(
            observed or self.observe(),
            published or self.publisher.published,
            deliveries_max=None if kafka_was_away else self._deliveries_max(),
            kafka_lost=kafka_lost,
        )

    def _deliveries_max(self) -> int:
        """Once, and again for each worker that came later or ended: partitions move then, and what is in hand there."""
        starts = sum(process.starts for process in self.processes if process.role == "worker")
        return 2 * starts - 1

    def write_published(self, path: Path) -> None:
        """Keep the publisher's notes, for the checker to run on its own."""
        with path.open("wb") as lines:
            lines.writelines(entry.line() for entry in self.publisher.published)

    def committed(self) -> dict[int, int]:
        """The next offset of the workers' group, by partition of the commands; of those that it says now."""
        places = [TopicPartition(self.topics.commands, each) for each in range(self.settings.kafka.partitions)]
        try:
            places = self._group.committed(places, timeout=ANSWER_TIMEOUT_S)
        except KafkaException:  # the group's coordinator has moved or is away; whoever waits asks again
            return {}
        return {place.partition or 0: place.offset or 0 for place in places}

    def _are_acknowledged(self, wanted: Counter[int], exactly: bool) -> bool:
        committed = self.committed()
        reached = {partition: committed.get(partition, 0) for partition in wanted}
        return reached == wanted if exactly else all(reached[each] >= offset for each, offset in wanted.items())


def rows_of(sendings: Sequence[Sending]) -> int:
    """How many journal rows a list of commands ends in: one a readable command id."""
    return len({sending.command_id for sending in sendings if sending.command_id is not None})
