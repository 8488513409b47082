"""`docs/sql`: a file for each statement, with what a database person asks first, and an index page."""

import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from org_service.documentation.sql_texts import SUBJECTS, TEXTS
from org_service.store.compiled import Compiled, list_statements

FOLDER: Final = "docs/sql"
PLAN_SUFFIX: Final = ".plan.txt"
"""Of the file beside a statement's that has its plan."""
_WIDTH: Final = 110
_BREAKS: Final = re.compile(
    r"(?<=,) |(?<! DISTINCT) (?=(?:AND|OR|UNION|JOIN|LEFT|WHERE|FROM|ORDER|ON|SET|VALUES|RETURNING) )"
)


def make_sql_pages(planned: Collection[str] = ()) -> Mapping[str, str]:
    """The text of each file, by its path in the checkout.

    Args:
        planned: The statements whose plan is there, for the index page.

    Raises:
        KeyError: A statement has no description.
    """
    found = list_statements()
    pages = {f"{FOLDER}/{name}.sql": _page(name, statement) for name, statement in found.items()}
    return pages | {f"{FOLDER}/README.md": _index(found, planned)}


def text_of(name: str) -> str:
    """Of a statement's own, or of its family: `facts/memberships_upsert` is described as `facts/upsert`."""
    if name in TEXTS:
        return TEXTS[name]
    subject, _, rest = name.partition("/")
    if subject == "lists":
        return TEXTS["lists/list_" + rest.split("_")[1]]
    facts, _, family = rest.partition("_")
    return TEXTS[f"{subject}/{family}"].replace("{table}", facts.removesuffix("s"))


def _page(name: str, statement: Compiled) -> str:
    lines = [name, "", *textwrap.wrap(text_of(name), _WIDTH - 3)]
    if statement.parameters:
        parameters = ", ".join(f"${number} {each}" for number, each in enumerate(statement.parameters, 1))
        lines += ["", *textwrap.wrap(f"Parameters: {parameters}", _WIDTH - 3, subsequent_indent="  ")]
    head = "\n".join(f"-- {line}".rstrip() for line in lines)
    return f"{head}\n\n{_wrapped(statement.text)};\n"


def _wrapped(text: str) -> str:
    """Lines of a width that can be read, broken between what commas and keywords part; nothing else is changed."""
    if "$$" in text:
        return text.strip()
    return "\n".join(part for line in text.splitlines() if line.strip() for part in _parts(line.strip()))


def _parts(line: str) -> Iterator[str]:
    row = ""
    for piece in _BREAKS.split(line):
        if row and len(row) + len(piece) >= _WIDTH:
            yield row
            row = "    " + piece
        else:
            row = f"{row} {piece}" if row else piece
    yield row


def _index(found: Mapping[str, Compiled], planned: Collection[str]) -> str:
    lines = [
        "# SQL",
        "",
        "Every statement that the service sends to Postgres, as it sends it: one file each, made from the code by",
        "`make generate` and compared by a test. `orgs migrate` also runs the migrations, which are not listed here.",
        "",
        "- A file is named after the module of `org_service.store` and the constant in it.",
        "- A batch is one statement, however large: parameters are arrays (`unnest`), rows of the journal go by COPY.",
        "- A worker plans each statement each time it runs (`force_custom_plan`); an edge plans it once a connection",
        "  (`force_generic_plan`, no sequential scans) and renews its connections each minute.",
        "- A plan is how Postgres ran a hot statement on a million organizations. `python -m tests.bench.plans` writes",
        "  the plans; a test compares their indexes with those that the descriptions name, and fails where a statement",
        "  is no longer the one that was explained.",
        "- `lists` has a statement for each combination of search, access, order and page. Each of these is shown",
        "  changed alone.",
    ]
    for subject, about in SUBJECTS.items():
        lines += ["", f"## {subject}", "", about, ""]
        names = [name for name in found if name.startswith(f"{subject}/")]
        lines += [_entry(name, has_plan=name in planned) for name in names]
    return "\n".join(lines) + "\n"


def _entry(name: str, *, has_plan: bool) -> str:
    plan = f" ([plan]({name}{PLAN_SUFFIX}))" if has_plan else ""
    return f"- [{name.partition('/')[2]}]({name}.sql){plan}: {_first_sentence(text_of(name))}"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]
