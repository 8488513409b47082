import io
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from org_events.commands import CreateOrganization
from org_service.domain.organization import StoredOrganization, name_key
from org_service.errors import BadInputError
from org_service.operate.organizations_file import (
    CSV_HEADER,
    BadLine,
    Row,
    format_of,
    read,
    read_from,
    to_csv_line,
    to_json_line,
)

DEMO = Path(__file__).parents[3] / "docs/examples/demo/organizations.jsonl"


def rows(path: Path, content: str | bytes, file_format: str = "jsonl") -> list[Row | BadLine]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read(path, "csv" if file_format == "csv" else "jsonl"))


def test_a_line_becomes_a_create_command(tmp_path: Path) -> None:
    text = '{"id": "0190c5f0-7d1c-7b7e-9d57-000000000001", "name": " Acme ", "domain": "ACME.com"}\n'
    (row,) = rows(tmp_path / "a", text)
    assert isinstance(row, Row)
    assert row.command.org_id == UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")
    assert (row.command.name, row.command.domain) == ("Acme", "acme.com")


def test_ids_are_the_same_every_time_and_differ_with_the_content(tmp_path: Path) -> None:
    first = rows(tmp_path / "a", '{"name": "Acme"}\n{"name": "ACME", "domain": "a.example"}\n{"name": "Other"}')
    again = rows(tmp_path / "b", '{"name": "Acme"}\n\n{"name": "Acme", "domain": "b.example"}')
    one, shouted, other = first
    same, moved = again
    assert isinstance(one, Row)
    assert isinstance(shouted, Row)
    assert isinstance(other, Row)
    assert isinstance(same, Row)
    assert isinstance(moved, Row)
    assert (one.command_id, one.command.org_id) == (same.command_id, same.command.org_id)
    # The same organization, asked for in other words: another command.
    assert one.command.org_id == shouted.command.org_id == moved.command.org_id
    assert len({one.command_id, shouted.command_id, moved.command_id, other.command_id}) == 4
    assert other.command.org_id != one.command.org_id


def test_what_a_line_says_something_about_is_known_also_where_it_is_null(tmp_path: Path) -> None:
    (named,) = rows(tmp_path / "a", '{"id": "0190c5f0-7d1c-7b7e-9d57-000000000001", "name": "Acme", "domain": null}')
    (cells,) = rows(tmp_path / "b", "id,name,city\n,Acme,\n", "csv")
    assert isinstance(named, Row)
    assert isinstance(cells, Row)
    assert (named.given, cells.given) == ({"name", "domain"}, {"name", "primary_address"})
    assert (named.command.domain, cells.command.primary_address) == (None, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{bad", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"domain": "a.example"}', "name: Field required"),
        ('{"name": null}', "name: "),
        ('{"name": "A", "nmae": "B"}', "nmae: Extra inputs"),
        ('{"name": "A", "id": "x"}', "id is not a UUID"),
        ('{"name": "A", "domain": "nope"}', "domain: "),
        ('{"name": "A", "primary_address": {"line1": "x"}}', "primary_address.city: "),
        (b'{"name": "\xff"}', "not JSON"),
        ('{"name": "A", "org_id": "0190c5f0-7d1c-7b7e-9d57-000000000001"}', "org_id: use id"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_the_next_is_read(
    tmp_path: Path, line: str | bytes, reason: str
) -> None:
    raw = line.encode() if isinstance(line, str) else line
    before, bad, after = rows(tmp_path / "a", b'{"name": "One"}\n' + raw + b'\n{"name": "Two"}\n')
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert isinstance(bad, BadLine)
    assert bad.line == 2
    assert bad.reason.startswith(reason)
    assert after.line == 3


def test_an_endless_line_is_not_held_in_memory(tmp_path: Path) -> None:
    bad, good = rows(tmp_path / "a", '{"name": "' + "x" * 3_000_000 + '"}\n{"name": "Two"}')
    assert bad == BadLine(1, "longer than 1048576 characters")
    assert isinstance(good, Row)


def test_csv_cells_become_fields_and_empty_ones_null(tmp_path: Path) -> None:
    text = (
        "\ufeffname,domain,line1,city,country\r\n"
        '"Acme, ""the"" firm",acme.example,Storgata 1,Oslo,NO\r\n'
        "Bare,,,,\r\n"
        '"two\r\nlines",,,,\r\n'
        "short\r\n"
        "Last,,only a street,,\r\n"
    )
    first, bare, two_lines, short, last = rows(tmp_path / "a", text, "csv")
    assert isinstance(first, Row)
    assert isinstance(bare, Row)
    assert first.command.name == 'Acme, "the" firm'
    assert first.command.primary_address is not None
    assert first.command.primary_address.city == "Oslo"
    assert (bare.command.domain, bare.command.primary_address) == (None, None)
    assert isinstance(two_lines, BadLine)
    assert two_lines.line == 4
    assert short == BadLine(6, "1 cells, the header has 5")
    assert isinstance(last, BadLine)
    assert last.line == 7
    assert "primary_address.city" in last.reason


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffname,domain,city,,\r\nAcme,acme.example,,,\r\n,,,,\r\n, ,,,\r\n\r\nBolt,,,,\r\n",
        "\ufeffName;Domain ;city\r\nAcme;acme.example;\r\n;;\r\n;;\r\n;;\r\nBolt;;;;;\r\n",
        "sep=;\r\nname;domain\r\nAcme;acme.example\r\n;\r\n\r\nBolt;\r\n",
        "name\tdomain\r\nAcme\tacme.example\r\n\t\r\n\r\n\r\nBolt\t\r\n",
    ],
)
def test_files_written_by_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    acme, bolt = rows(tmp_path / "a", text, "csv")
    assert isinstance(acme, Row)
    assert isinstance(bolt, Row)
    assert (acme.command.name, acme.command.domain) == ("Acme", "acme.example")
    assert (bolt.command.name, bolt.command.domain) == ("Bolt", None)
    assert (acme.line, bolt.line) == (3 if text.startswith("sep") else 2, 6)


def test_a_cell_that_no_column_is_named_for_is_a_bad_line(tmp_path: Path) -> None:
    (bad,) = rows(tmp_path / "a", "name,domain,,\nAcme,,,x\n", "csv")
    assert bad == BadLine(2, "4 cells, the header has 2")


def test_lines_inside_an_unclosed_quote_are_reported(tmp_path: Path) -> None:
    first, rest = rows(tmp_path / "a", 'name,domain\nOne,\n"Two,x\nThree,\nFour,\n', "csv")
    assert isinstance(first, Row)
    assert rest == BadLine(3, "not CSV: unexpected end of data; a quote joins all lines up to 5 to this one")
    joined, last = rows(tmp_path / "b", 'name,domain\n"One,\n"Two",\nThree,\n', "csv")
    assert joined == BadLine(2, "not CSV: ',' expected after '\"'; a quote joins all lines up to 3 to this one")
    assert isinstance(last, Row)


def test_a_name_that_is_not_utf8_is_reported_as_such(tmp_path: Path) -> None:
    bad, good = rows(tmp_path / "a", b"name,domain\nCaf\xe9,\nOne,\n", "csv")
    assert bad == BadLine(2, "name: not in UTF-8")
    assert isinstance(good, Row)


@pytest.mark.parametrize(
    "header", ["", "domain", "name,nmae", "name,name", "name,domain;city", '"name', "n" * 1_100_000]
)
def test_an_unknown_csv_header_stops_the_import_before_anything_is_sent(tmp_path: Path, header: str) -> None:
    with pytest.raises(BadInputError, match="must begin with a line that names its columns"):
        rows(tmp_path / "a", f"{header}\nx,y\n", "csv")


def test_a_file_in_another_encoding_shows_what_it_begins_with(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in UTF-8 .* It begins with \['\\udcff\\udcfen\\x00a"):
        rows(tmp_path / "a", "name\nOne\n".encode("utf-16"), "csv")


def test_the_format_comes_from_the_name() -> None:
    assert (format_of(Path("a.jsonl")), format_of(Path("a.csv"))) == ("jsonl", "csv")
    assert (format_of(Path("A.JSONL")), format_of(Path("A.CSV"))) == ("jsonl", "csv")
    with pytest.raises(BadInputError, match="--format"):
        format_of(Path("a.xlsx"))


def test_the_demo_has_a_thousand_organizations_that_do_not_conflict() -> None:
    organizations = list(read(DEMO, "jsonl"))
    good = [row for row in organizations if isinstance(row, Row)]
    assert len(good) == len(organizations) == 1000
    assert len({name_key(row.command.name) for row in good}) == 1000
    assert len({row.command_id for row in good}) == 1000
    countries = {row.command.primary_address.country for row in good if row.command.primary_address is not None}
    assert len(countries) >= 30
    assert any(row.command.domain is None for row in good)
    assert any(row.command.primary_address is None for row in good)
    assert any(not row.command.name.isascii() for row in good)


TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40)
ADDRESS = st.fixed_dictionaries(
    {"line1": TEXT, "city": TEXT, "country": st.sampled_from(["NO", "GB"])},
    optional={"line2": TEXT, "region": TEXT, "postal_code": TEXT},
)


@given(name=TEXT, domain=st.sampled_from([None, "xn--bcher-kva.example"]), address=st.none() | ADDRESS)
@example(name='"sep=;"', domain=None, address=None)
@example(name="sep=;", domain=None, address={"line1": "=1+1", "city": ' "x"; ', "country": "NO"})
@example(name="a,b;c\td", domain=None, address=None)
def test_what_is_written_is_read_as_the_same(name: str, domain: str | None, address: dict[str, str] | None) -> None:
    org_id = UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")
    fields = {"org_id": org_id, "name": name, "domain": domain, "primary_address": address}
    try:
        wanted = CreateOrganization.model_validate(fields)
    except ValidationError:
        assume(False)  # no organization has such a name or address
        return
    kept = wanted.model_dump(mode="json")
    now = datetime(2026, 11, 28, tzinfo=UTC)
    stored = StoredOrganization(
        id=org_id,
        name=kept["name"],
        name_key=None,
        domain=kept["domain"],
        primary_address=kept["primary_address"],
        created_at=now,
        updated_at=now,
        deactivated_at=None,
        deleted_at=None,
        version=1,
    )
    (from_json,) = read_from(io.BytesIO(to_json_line(stored).encode()), "jsonl", Path("-"))
    csv = f"{CSV_HEADER}\n{to_csv_line(stored)}\n"
    (from_csv,) = read_from(io.BytesIO(csv.encode()), "csv", Path("-"))
    for row in (from_json, from_csv):
        assert isinstance(row, Row)
        assert row.command.model_dump(mode="json") == kept
        assert row.given == {"name", "domain", "primary_address"}
