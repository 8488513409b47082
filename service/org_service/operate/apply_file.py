"""`orgs apply`: organizations become what a file says of them.

A line without an organization creates it; of one that exists only what the line names is compared, and changed where it
differs. Organizations that no line names stay as they are: nothing is deleted.

Everything is judged as of one position of the journal, and by the file's content, which has a digest. So a run that is
resumed makes the same commands with the same ids, and each is guarded by the version that the plan saw. A run reads a
copy of the file that it has compared with the digest: what is changed in the file meanwhile has no effect.
"""

import asyncio
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar, Final, Literal, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict

from org_events.commands import Command, UpdateOrganization
from org_service.domain.organization import name_key
from org_service.errors import PreconditionError
from org_service.operate import organizations_file
from org_service.operate.operation import (
    LEFT_OUT_SHOWN_MAX,
    Execution,
    Plan,
    Tally,
    explain_left_out,
    open_database,
)
from org_service.operate.organizations_file import BadLine, Format, Row
from org_service.operate.sending import Item, open_sender, with_failures
from org_service.settings import Settings
from org_service.store import journal, organizations
from org_service.store.database import Database
from org_service.store.journal import PastState

READ_LINES: Final = 1_000
"""Judged by one look into the database."""
STEP_LINES_MAX: Final = 1_000
SKIPPED_MAX: Final = 10_000
"""Lines whose names others have. More of them, and it is not the right file, or it lacks the ids."""
_COPY_BYTES: Final = 1 << 20

Verdict = Literal["create", "update", "unchanged", "conflict", "invalid"]
_WORDS: Final[Mapping[Verdict, str]] = {"create": "created", "update": "updated"}


class Parameters(BaseModel):
    """What makes it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: Format
    host: str
    """Where the file is, for people."""
    only_create: bool = False
    """Whether organizations that exist stay as they are."""
    as_of: int
    """The position that organizations are judged as of."""
    sha256: str | None = None
    """Of the content that was planned."""
    skipped: tuple[int, ...] = ()
    """Lines whose names were others' when it was planned."""


class Judged(NamedTuple):
    """What a line comes to."""

    line: int
    verdict: Verdict
    row: Row | None = None
    command: Command | None = None
    before: Mapping[str, Any] | None = None
    """Of the fields that change; None where the organization is new."""
    after: Mapping[str, Any] = {}
    why: str = ""
    claims: str | None = None
    """The name that it takes, in the form that must be unique."""
    releases: str | None = None
    """The one that it gives up."""


class ApplyFile:
    """A file that is applied."""

    kind: ClassVar[str] = "apply"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(
        cls, settings: Settings, path: Path, file_format: Format, *, only_create: bool = False
    ) -> "ApplyFile":
        """Make one for what is in the file and in the journal now.

        Args:
            settings: Of the servers.
            path: Absolute; a file that can be read again, not a pipe.
            file_format: Of its content.
            only_create: Leave organizations that exist as they are.
        """
        async with Database(settings.database, "operate", direct=True).connect() as conn:
            head = await journal.read_head(conn)
        asked = Parameters(
            path=path, format=file_format, host=socket.gethostname(), only_create=only_create, as_of=head
        )
        return cls(settings, asked.model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """The file."""
        return f"file {self._asked.path}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The file with its digest, and as of when."""
        return self._asked.model_dump(mode="json")

    async def see_here(self) -> None:
        """See that the file is on this machine, as it was planned.

        Raises:
            PreconditionError: It isn't.
        """
        with await self._copy() as (_, digest):
            self._see_same(digest)

    async def plan(self) -> Plan:
        """Judge each line."""
        tally, verdicts, wrong = Tally(), Counter[Verdict](), list[str]()
        changed_since, skipped = 0, list[int]()
        with await self._copy() as (file, digest):
            async with open_database(self._settings) as database:
                judging = _Judging(self._asked, database, foreseeing=True)
                async for chunk in judging.judge_all(file):
                    changed_since += judging.changed_since
                    for each in chunk:
                        verdicts[each.verdict] += 1
                        if each.command is not None:
                            tally.add(_identity(each), lambda each=each: _shown(each))
                        elif each.verdict != "unchanged" and len(wrong) < LEFT_OUT_SHOWN_MAX:
                            wrong.append(f"line {each.line}: {each.verdict}: {each.why}")
                skipped = judging.taken
        self._asked = self._asked.model_copy(update={"sha256": digest, "skipped": tuple(skipped)})
        facts = {
            "file": str(self._asked.path),
            "sha256": digest,
            "as of position": self._asked.as_of,
            "lines": verdicts.total(),
            **{verdict: verdicts[verdict] for verdict in ("create", "update", "unchanged", "conflict", "invalid")},
            "organizations that changed since": changed_since,
        }
        left = verdicts["conflict"] + verdicts["invalid"]
        return tally.plan(facts, explain_left_out("lines that can't be applied, and are left out", wrong, left))

    async def run(self, execution: Execution) -> None:
        """Send what was not sent yet, a step of lines at a time.

        Raises:
            PreconditionError: The file is another one than was planned.
        """
        progress: Mapping[str, Any] = execution.progress or {"line": 0}
        await execution.record(progress, {})  # see whose run this is before anything goes out
        with await self._copy() as (file, digest):
            self._see_same(digest)
            async with open_database(self._settings) as database, open_sender(self._settings, execution) as sender:
                async for chunk in _Judging(self._asked, database, foreseeing=False).judge_all(file):
                    todo = [each for each in chunk if each.line > progress["line"]]
                    while todo:
                        step = _step(todo, execution.step_max(STEP_LINES_MAX))
                        todo = todo[len(step) :]
                        done = await sender.send([_item(each) for each in step if each.command is not None])
                        progress = with_failures({**progress, "line": step[-1].line}, done.failures)
                        await execution.record(progress, done.counts)

    async def _copy(self) -> "_Copy":
        copying = asyncio.to_thread(_copy, self._asked.path)
        try:
            return await copying
        except OSError as error:
            raise PreconditionError(
                f"{self._asked.path} can't be read here ({error.strerror}): it was planned on {self._asked.host}."
            ) from error

    def _see_same(self, digest: str) -> None:
        if self._asked.sha256 not in (None, digest):
            raise PreconditionError(
                f"{self._asked.path} is another file than was planned (SHA-256 {digest}, not {self._asked.sha256}): "
                "put the former one back, or plan again."
            )


class _Copy:
    """A copy of a file that nobody else can change, with the digest of its content."""

    def __init__(self, file: IO[bytes], digest: str) -> None:
        self._file = file
        self._digest = digest

    def __enter__(self) -> tuple[IO[bytes], str]:
        return self._file, self._digest

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _copy(path: Path) -> _Copy:
    digest = sha256()
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        copy = stack.enter_context(tempfile.TemporaryFile())
        while content := file.read(_COPY_BYTES):
            digest.update(content)
            copy.write(content)
        copy.seek(0)
        stack.pop_all()
        file.close()
    return _Copy(copy, digest.hexdigest())


class _Judging:
    """The lines of a file, judged in order: what a line takes is not there for those after it."""

    def __init__(self, asked: Parameters, database: Database, *, foreseeing: bool) -> None:
        """Begin.

        Args:
            asked: The file, and as of when.
            database: Where the organizations are.
            foreseeing: Also look whose the names are now; else what was foreseen is taken from `asked`.
        """
        self._asked = asked
        self._database = database
        self._foreseeing = foreseeing
        self._skipped = frozenset(asked.skipped)
        self._lines: dict[UUID, int] = {}
        self._claimed: dict[str, int] = {}
        self._released: dict[str, UUID] = {}
        self.taken: list[int] = []
        """Lines whose names others have now."""
        self.changed_since = 0
        """How many organizations of the last lines changed since they were judged as of."""

    async def judge_all(self, file: IO[bytes]) -> AsyncIterator[list[Judged]]:
        """Judge all lines, some at a time."""
        lines = organizations_file.read_from(file, self._asked.format, self._asked.path)
        while chunk := list(islice(lines, READ_LINES)):
            rows = [each for each in chunk if isinstance(each, Row)]
            async with self._database.connect() as conn:
                ids = [row.command.org_id for row in rows]
                states = await journal.select_states(conn, ids, self._asked.as_of)
                keys = {name_key(row.command.name) for row in rows} if self._foreseeing else set[str]()
                holders = await organizations.find_holders(conn, keys)
                now = await organizations.find_versions(conn, ids if self._foreseeing else ())
            then = {org_id: state.version for org_id, state in states.items()}
            self.changed_since = sum(version != then.get(org_id) for org_id, version in now.items())
            yield [self._judge(each, states, holders) for each in chunk]

    def _judge(self, row: Row | BadLine, states: Mapping[UUID, PastState], holders: Mapping[str, UUID]) -> Judged:
        if isinstance(row, BadLine):
            return Judged(row.line, "invalid", why=row.reason)
        org_id = row.command.org_id
        earlier = self._lines.setdefault(org_id, row.line)
        if earlier != row.line:
            return Judged(row.line, "conflict", row, why=f"line {earlier} is about the same organization")
        judged = _compare(row, states.get(org_id), only_create=self._asked.only_create)
        if judged.claims is not None:
            why = self._obstacle(judged.claims, judged.line, org_id, holders)
            if why is not None:
                return Judged(row.line, "conflict", row, why=why)
            self._claimed[judged.claims] = row.line
        if judged.releases is not None:
            self._released[judged.releases] = org_id
        return judged

    def _obstacle(self, key: str, line: int, org_id: UUID, holders: Mapping[str, UUID]) -> str | None:
        if key in self._claimed:
            return f"line {self._claimed[key]} takes the same name"
        holder = holders.get(key)
        is_others = holder is not None and holder not in (org_id, self._released.get(key))
        if not is_others and line not in self._skipped:
            return None
        self.taken.append(line)
        if len(self.taken) > SKIPPED_MAX:
            raise PreconditionError(
                f"{self._asked.path}: more than {SKIPPED_MAX:,} lines name organizations that have other ids here. "
                "Give them their ids (`orgs export` has them), or is it another system's file?"
            )
        return f"its name is taken by {holder}"


def _compare(row: Row, state: PastState | None, *, only_create: bool) -> Judged:
    wanted = row.command.model_dump(mode="json", include=set(row.given))
    if state is None:
        return Judged(row.line, "create", row, row.command, None, wanted, claims=name_key(row.command.name))
    if state.after is None:
        why = f"it is deleted: `orgs send restore {row.command.org_id}` brings it back"
        return Judged(row.line, "conflict", row, why=why)
    after = {field: value for field, value in wanted.items() if state.after[field] != value}
    before = {field: state.after[field] for field in after}
    if not after:
        return Judged(row.line, "unchanged", row)
    if only_create:
        why = f"an organization with this id exists already, with another {' and '.join(after)}"
        return Judged(row.line, "conflict", row, why=why)
    if state.after["deactivated"]:
        return Judged(row.line, "conflict", row, why="it is deactivated: reactivate it first")
    command = UpdateOrganization.model_validate(
        {"org_id": row.command.org_id, "expected_version": state.version, **after}
    )
    is_key, was_key = name_key(row.command.name), name_key(state.after["name"])
    renamed = "name" in after and is_key != was_key
    return Judged(
        row.line,
        "update",
        row,
        command,
        before,
        after,
        claims=is_key if renamed else None,
        releases=was_key if renamed else None,
    )


def _step(todo: Sequence[Judged], most: int) -> Sequence[Judged]:
    """The next lines, up to the first that takes a name which one before it gives up: partitions are decided apart."""
    released: set[str | None] = set()
    for number, each in enumerate(todo[:most]):
        if each.claims is not None and each.claims in released:
            return todo[:number]
        released.add(each.releases)
    return todo[:most]


def _item(judged: Judged) -> Item:
    assert judged.command is not None
    return Item(f"line {judged.line}", _WORDS[judged.verdict], f"apply {judged.command.org_id}", [judged.command])


def _identity(judged: Judged) -> bytes:
    assert judged.command is not None
    return b"%d %b %b" % (judged.line, judged.command.type.encode(), judged.command.to_body())


def _shown(judged: Judged) -> Mapping[str, Any]:
    assert judged.row is not None
    return {
        "line": judged.line,
        "does": judged.verdict,
        "org_id": str(judged.row.command.org_id),
        "name": judged.row.command.name,
        "before": _fields(judged.before),
        "after": _fields(judged.after),
    }


def _fields(state: Mapping[str, Any] | None) -> str | None:
    if state is None:
        return None
    return ", ".join(f"{field} {orjson.dumps(value).decode()}" for field, value in state.items())
