"""The field rules of docs/contract.md, written a second time.

Nothing here is imported from the service, and from the contract only the list of countries (data, not a rule).
A check returns the normalized value or raises `Wrong`; `errors` of a command are the paths of its wrong fields.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from org_events.organization import COUNTRIES

ADDRESS_FIELDS = ("line1", "line2", "city", "region", "postal_code", "country")
REQUIRED_OF_ADDRESS = ("line1", "city", "country")
HOST_NAME_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
REGION_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")

Check = Callable[[Any], Any]


class Wrong(Exception):
    """A field is invalid; `paths` are those of the wrong parts, below the field itself."""

    def __init__(self, *paths: str) -> None:
        super().__init__(*paths)
        self.paths = paths or ("",)


def name_key(name: str) -> str:
    """What must be unique among organizations that are not deleted."""
    shown = "".join(character for character in name if not invisible(character))
    return unicodedata.normalize("NFKC", shown.casefold()).strip()


def invisible(character: str) -> bool:
    """Unicode's Default_Ignorable_Code_Point, but for the tags of which flags of regions are made."""
    if character in "\N{COMBINING GRAPHEME JOINER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\u17b4\u17b5":
        return True
    if unicodedata.name(character, "").startswith(("VARIATION SELECTOR-", "MONGOLIAN FREE VARIATION SELECTOR")):
        return True
    if unicodedata.category(character) == "Cf":
        # Marks that are shown: of annotations, of Arabic, Syriac and Kaithi numbers, of hieroglyphs.
        shown = ("INTERLINEAR", "ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "TAG ", "CANCEL TAG")
        return character == "\u061c" or not unicodedata.name(character, "?").startswith(shown)
    return (
        character in "\u2065\ufff0\ufff1\ufff2\ufff3\ufff4\ufff5\ufff6\ufff7\ufff8"
        or 0xE0080 <= ord(character) <= 0xE0FFF
    )


def line(value: Any) -> str:
    """1 to 200 characters after NFKC and trimming, no control characters."""
    if not isinstance(value, str):
        raise Wrong
    text = unicodedata.normalize("NFKC", value).strip()
    if not 1 <= len(text) <= 200:
        raise Wrong
    if all(invisible(character) or character.isspace() or character == "\u2800" for character in text):
        raise Wrong
    if any(unicodedata.bidirectional(character) in TURNING for character in text):
        raise Wrong
    if any("\ufff9" <= character <= "\ufffb" for character in text):
        raise Wrong
    if any("\U000e0000" <= character <= "\U000e007f" for character in REGION_FLAG.sub("", text)):
        raise Wrong
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise Wrong
    return text


def domain(value: Any) -> str | None:
    """A lower-case host name of two labels or more, at most 253 characters."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Wrong
    text = value.strip().lower()
    labels = text.split(".")
    if len(text) > 253 or len(labels) < 2 or labels[-1].isdigit():
        raise Wrong
    if not all(HOST_NAME_LABEL.fullmatch(label) for label in labels):
        raise Wrong
    return text


def country(value: Any) -> str:
    """ISO 3166-1 alpha-2."""
    if value not in COUNTRIES:
        raise Wrong
    return value


def address(value: Any) -> dict[str, str | None] | None:
    """A whole postal address, all six members, the optional ones null when absent."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Wrong
    whole: dict[str, str | None] = dict.fromkeys(ADDRESS_FIELDS)
    wrong: list[str] = []
    for field in ADDRESS_FIELDS:
        member = value.get(field)
        if member is None and (field not in REQUIRED_OF_ADDRESS):
            continue
        try:
            whole[field] = country(member) if field == "country" else line(member)
        except Wrong:
            wrong.append(field)
    if wrong:
        raise Wrong(*wrong)
    return whole


def version(value: Any) -> int | None:
    """A positive integer that fits 64 bits; null asks for nothing."""
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 2**63 - 1:
        raise Wrong
    return value


FIELDS: dict[str, Check] = {"name": line, "domain": domain, "primary_address": address}


def if_current(value: Any) -> dict[str, Any]:
    """The values the organization must have; null asks for nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Wrong
    wanted, wrong = present(value, FIELDS)
    if wrong:
        raise Wrong(*wrong)
    return wanted


PRECONDITIONS: dict[str, Check] = {"expected_version": version, "if_current": if_current}


def present(body: dict[str, Any], checks: dict[str, Check]) -> tuple[dict[str, Any], list[str]]:
    """The fields of `body` that are there, normalized, and the paths of those that are wrong."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for field, check in checks.items():
        if field not in body:
            continue
        try:
            values[field] = check(body[field])
        except Wrong as error:
            wrong.extend(f"{field}.{path}" if path else field for path in error.paths)
    return values, wrong
