"""`python -m tests.chaos.outbox`: three processes drain an outbox, and are killed, or frozen for longer than a lease.

Meanwhile a publisher enqueues, and a stand-in for the service answers, or forgets to. In the end each row must have the
outcome that the stand-in gave, its hook's row must be there once, and each organization's commands must have arrived in
the order of their rows. Prints the seed; the exit status is 1 where anything is not so.
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

import org_local
from org_events import Topics, UpdateOrganization
from org_events.publishing.outbox import Outbox
from tests.integration.client.answering import AnsweringService, Received, result
from tests.support.draining import BOOKED
from tests.support.topics import create
from tests.support.waiting import until

_OUTBOX: Final = Outbox()
_ORGANIZATIONS: Final = 50
_PROCESSES: Final = 3
_FROZEN_S: Final = 2.5
"""More than the lease of `tests.support.draining`."""


def main() -> int:
    """Run, then judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.outbox", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    topics = Topics("chaos-outbox.")
    with org_local.start() as stack:
        asyncio.run(create(stack.bootstrap_servers, topics.specs(partitions=3)))
        storm = _Storm(stack, topics, random.Random(arguments.seed), arguments.seconds)
        wrong = asyncio.run(storm.run())
    for each in wrong:
        print(f"WRONG: {each}")
    return bool(wrong)


class _Storm:
    def __init__(self, stack: org_local.Stack, topics: Topics, chance: random.Random, seconds: float) -> None:
        self._where = (stack.bootstrap_servers, topics.prefix, stack.database_url)
        self._topics = topics
        self._chance = chance
        self._end = time.monotonic() + seconds
        self._org_ids = [uuid4() for _ in range(_ORGANIZATIONS)]
        self._hits = Counter[str]()

    async def run(self) -> list[str]:
        self._service = AnsweringService(self._where[0], self._topics, self._answer)
        async with self._service, asyncpg.create_pool(self._where[2], min_size=1) as pool:
            for statement in (*_OUTBOX.table_statements, BOOKED):
                await pool.execute(statement)
            await asyncio.gather(self._enqueue(pool), *(self._run_and_hit() for _ in range(_PROCESSES)))
            last = await self._start()
            try:
                undecided = "SELECT count(*) FROM org_outbox WHERE decided_at IS NULL"
                await until(lambda: pool.fetchval(undecided), 0, 120)
            finally:
                last.kill()
                await last.wait()
            return await self._judge(pool)

    def _answer(self, command: Received) -> dict[str, Any] | None:
        """One of ten is forgotten, until it is sent again."""
        if self._chance.random() < 0.1:
            return None
        return result(command, code=200 + self._chance.randrange(50))

    async def _enqueue(self, pool: Any) -> None:
        number = 0
        while time.monotonic() < self._end:
            async with pool.acquire() as connection, connection.transaction():
                for _ in range(self._chance.randrange(1, 20)):
                    org_id = self._chance.choice(self._org_ids)
                    await _OUTBOX.enqueue(connection, UpdateOrganization(org_id=org_id, name=str(number)))
                    number += 1
            await asyncio.sleep(self._chance.random() * 0.1)

    async def _run_and_hit(self) -> None:
        while time.monotonic() < self._end:
            process = await self._start()
            await asyncio.sleep(self._chance.uniform(0.7, 4))
            if self._chance.random() < 0.3:
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(_FROZEN_S)
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(self._chance.uniform(0, 1))
                self._hits["freezes"] += 1
            process.kill()
            await process.wait()
            self._hits["kills"] += 1

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.draining", "never", *self._where
        )

    async def _judge(self, pool: Any) -> list[str]:
        rows = await pool.fetch("SELECT id, org_id, result->>'code' AS code FROM org_outbox ORDER BY number")
        booked = Counter(
            {
                row["command_id"]: row["count"]
                for row in await pool.fetch("SELECT command_id, count(*) FROM booked GROUP BY 1")
            }
        )
        answers = {UUID(key): answer["code"] for key, answer in self._service.answers.items()}
        firsts = list(dict.fromkeys(UUID(each.command_id) for each in self._service.received))
        of = {row["id"]: row["org_id"] for row in rows}
        wrong = [f"{row['id']} has another outcome" for row in rows if answers.get(row["id"]) != int(row["code"])]
        wrong += [f"{row['id']} was booked {booked[row['id']]} times" for row in rows if booked[row["id"]] != 1]
        for org_id in self._org_ids:
            wanted = [row["id"] for row in rows if row["org_id"] == org_id]
            if [each for each in firsts if of[each] == org_id] != wanted:
                wrong.append(f"the order of {org_id}")
        again = len(self._service.received) - len(firsts)
        print(f"{len(rows):,} rows, {again:,} sent again, {dict(self._hits)}, {len(wrong)} wrong")
        return wrong


if __name__ == "__main__":
    sys.exit(main())
