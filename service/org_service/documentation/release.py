"""Keeps the contract of a release, so that every later one is compared with it: `make release`."""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from org_service.documentation.files import ROOT

_KEPT: Final = {
    "docs/asyncapi.json": "events/released/{}/asyncapi.json",
    "events/surface.txt": "events/released/{}/surface.txt",
    "events/org_events/testing/golden/latest.json": "events/org_events/testing/golden/{}.json",
}
"""What is kept, and where: topics, keys, headers, schemas; names that programs import; messages as written."""


def keep(root: Path, release: str) -> None:
    """Copy the generated files of the contract to where a release's are; the same again changes nothing.

    Raises:
        SystemExit: The release is there already, with other content; nothing was changed.
    """
    copies = [(root / source, root / target.format(release)) for source, target in _KEPT.items()]
    if any(target.exists() and target.read_bytes() != source.read_bytes() for source, target in copies):
        sys.exit(
            f"{release} is released, and the contract has changed since: raise the version in events/pyproject.toml"
        )
    for source, target in copies:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


if __name__ == "__main__":
    keep(ROOT, version("org-events"))
