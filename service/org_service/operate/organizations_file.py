"""A file of organizations: JSON lines or CSV, one organization a line, read without holding the file in memory.

JSON lines: `{"name": "Acme", "domain": "acme.com", "primary_address": {…}, "id": "…"}`, all but the name optional.
CSV: a header line with any of `id, name, domain, line1, line2, city, region, postal_code, country`; an empty cell is
null, and an address is there when any of its cells is filled. As spreadsheets write it: with a byte order mark, CRLF,
empty columns at the end, rows of nothing but separators, and with semicolons (where the decimal mark is a comma) or
tabs, which the first line tells, or a line `sep=;` before it.

An organization without an id gets one that is derived from its name, so applying a file again changes nothing.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from io import StringIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, cast
from uuid import UUID, uuid5

import orjson
from pydantic import ValidationError

from org_events.commands import CreateOrganization
from org_service.domain.organization import StoredOrganization
from org_service.errors import BadInputError

Format = Literal["jsonl", "csv"]

ID_NAMESPACE: Final = UUID("3b6c3e5e-9d0c-5a3e-8f0e-6a2f1c9b7d54")
"""Of organization ids derived from names and of command ids derived from rows; must never change."""
LINE_CHARS_MAX: Final = 1024 * 1024
"""A longer line is not an organization; far above the 64 KiB that a command may have."""

HEADER_CHARS_MAX: Final = 200
"""Of a header that isn't understood, in the message; enough to see what is wrong with it."""

_ADDRESS: Final = ("line1", "line2", "city", "region", "postal_code", "country")
_CSV_COLUMNS: Final = ("id", "name", "domain", *_ADDRESS)
"""Those there are; only the name is needed."""
CSV_HEADER: Final = ",".join(_CSV_COLUMNS)
_SEPARATORS: Final = ",;\t"
_SEPARATOR_LINE: Final = re.compile(r'"?sep=([,;\t])"?[,;\t]*\r?\n', re.IGNORECASE)
"""A first line that tells spreadsheets the separator."""


class Row(NamedTuple):
    """One line as a command."""

    line: int
    command_id: UUID
    command: CreateOrganization
    given: frozenset[str] = frozenset()
    """The fields that the line says something about, be it that they are null: of JSON those that it names, of CSV
    those that have a column."""


class BadLine(NamedTuple):
    """A line that no command can be made of."""

    line: int
    reason: str


def format_of(path: Path) -> Format:
    """The format that a file's name promises.

    Raises:
        BadInputError: It promises none.
    """
    suffix = path.suffix.lower()
    if suffix in {".jsonl", ".ndjson", ".json"}:
        return "jsonl"
    if suffix == ".csv":
        return "csv"
    raise BadInputError(f"{path} is neither .jsonl nor .csv: add --format jsonl or --format csv.")


def read(path: Path, file_format: Format) -> Iterator[Row | BadLine]:
    """Read a file line by line; empty lines are skipped.

    Raises:
        OSError: The file can't be read.
        BadInputError: A CSV file's header has no `name`, or columns that nobody knows.
    """
    with path.open("rb") as file:
        yield from read_from(file, file_format, path)


def read_from(file: IO[bytes], file_format: Format, name: Path) -> Iterator[Row | BadLine]:
    """As `read`, from a file that is open; it is closed at the end.

    Args:
        file: At its beginning.
        file_format: Of its content.
        name: For messages.
    """
    with TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _read_csv(name, text) if file_format == "csv" else _read_json_lines(text)


def to_json_line(organization: StoredOrganization) -> str:
    """An organization as a line of JSON, without the line's end."""
    fields = {"name": organization.name, "domain": organization.domain, "primary_address": organization.primary_address}
    return orjson.dumps({"id": str(organization.id), **fields}).decode()


def to_csv_line(organization: StoredOrganization) -> str:
    """An organization as a line of CSV, in the order of `CSV_HEADER`, without the line's end."""
    address = organization.primary_address or {}
    cells = {"id": str(organization.id), "name": organization.name, "domain": organization.domain, **address}
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(cells.get(name) or "" for name in _CSV_COLUMNS)
    return line.getvalue()


def _read_json_lines(file: IO[str]) -> Iterator[Row | BadLine]:
    number = 0
    while line := file.readline(LINE_CHARS_MAX):
        number += 1
        if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
            while (rest := file.readline(LINE_CHARS_MAX)) and not rest.endswith("\n"):
                pass
            yield BadLine(number, f"longer than {LINE_CHARS_MAX} characters")
        elif line.strip():
            yield _from_json(number, line)


def _from_json(number: int, line: str) -> Row | BadLine:
    try:
        document = orjson.loads(line.encode("utf-8", "surrogateescape"))
    except orjson.JSONDecodeError as error:
        return BadLine(number, f"not JSON: {error.msg} at character {error.pos}")
    if not isinstance(document, dict):
        return BadLine(number, "not a JSON object")
    return _row(number, cast("dict[str, Any]", document))


def _read_csv(path: Path, file: IO[str]) -> Iterator[Row | BadLine]:
    csv.field_size_limit(LINE_CHARS_MAX)
    first = file.readline(LINE_CHARS_MAX)
    told = _SEPARATOR_LINE.fullmatch(first)
    separator = told[1] if told else max(_SEPARATORS, key=first.count)
    before = 1 if told else 0
    reader = csv.reader(file if told else chain([first], file), strict=True, delimiter=separator)
    try:
        header = _without_empty_end([name.strip().lower() for name in next(reader, list[str]())])
    except csv.Error as error:
        header = [f"{error}"]
    unknown = [name for name in header if name not in _CSV_COLUMNS]
    if unknown or "name" not in header or len(set(header)) != len(header):
        others = ", ".join(name for name in _CSV_COLUMNS if name != "name")
        raise BadInputError(
            f"{path} must begin with a line that names its columns, in UTF-8 and separated by commas, semicolons "
            f"or tabs: name, and any of {others}. It begins with {ascii(header)[:HEADER_CHARS_MAX]}"
        )
    given = frozenset("primary_address" if name in _ADDRESS else name for name in header) - {"id"}
    while True:
        first_line = before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield BadLine(first_line, f"not CSV: {error}{_up_to(first_line, before + reader.line_num)}")
            continue
        if cells is None:
            return
        if len(cells) > len(header):
            cells[len(header) :] = _without_empty_end(cells[len(header) :])
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) == len(header):
            yield _row(first_line, _from_cells(dict(zip(header, cells, strict=True))), given)
        else:
            up_to = _up_to(first_line, before + reader.line_num)
            yield BadLine(first_line, f"{len(cells)} cells, the header has {len(header)}{up_to}")


def _without_empty_end(cells: list[str]) -> list[str]:
    """Without the empty cells at its end: columns that somebody once touched."""
    filled = max((number for number, cell in enumerate(cells, 1) if cell.strip()), default=0)
    return cells[:filled]


def _up_to(first_line: int, last_line: int) -> str:
    """What a quote that isn't closed has swallowed, so that nobody takes those lines for imported."""
    return "" if first_line == last_line else f"; a quote joins all lines up to {last_line} to this one"


def _from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    filled = {name: cell for name, cell in cells.items() if cell.strip()}
    organization: dict[str, Any] = {name: filled[name] for name in ("id", "name", "domain") if name in filled}
    address = {name: filled[name] for name in _ADDRESS if name in filled}
    return organization | ({"primary_address": address} if address else {})


def _row(number: int, organization: dict[str, Any], given: frozenset[str] | None = None) -> Row | BadLine:
    if "org_id" in organization:
        return BadLine(number, "org_id: use id, as in a published organization")
    fields = {name: content for name, content in organization.items() if name != "id"}
    named = organization.get("id")
    try:
        # A name that is wrong fails below whatever the id is.
        org_id = _derived(_folded(str(fields.get("name")))) if named is None else UUID(str(named))
    except UnicodeEncodeError:
        return BadLine(number, "name: not in UTF-8")
    except ValueError:
        return BadLine(number, "id is not a UUID")
    try:
        command = CreateOrganization.model_validate({**fields, "org_id": org_id})
    except ValidationError as error:
        wrong = (
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        )
        return BadLine(number, "; ".join(wrong))
    return Row(number, _derived(command.to_body().decode()), command, frozenset(fields) if given is None else given)


def _folded(name: str) -> str:
    """What an id is derived from; unlike the form of a name that must be unique, it must never change."""
    folded = name.strip().casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFKC", folded)


def _derived(text: str) -> UUID:
    return uuid5(ID_NAMESPACE, text)
