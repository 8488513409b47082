"""Data folders with odd names, and data folders that can't be used."""

import os
from pathlib import Path

import pytest

import org_local

pytestmark = pytest.mark.integration

HEAP_MB = 256


def test_data_are_stored_under_an_unusual_name(tmp_path: Path) -> None:
    folder = tmp_path / r"jörg's \new 100% ${x} #1=\u0041 日本 😀"

    with org_local.start(folder, kafka_heap_mb=HEAP_MB):
        assert (folder / "kafka-1" / "data" / "meta.properties").exists()
        assert (folder / "postgres" / "postmaster.pid").exists()

    assert list(tmp_path.iterdir()) == [folder]
    with org_local.start(folder, kafka_heap_mb=HEAP_MB) as again:
        assert again.kafka.running


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a,b", "a comma as a separator of two folders; choose"), (os.fsdecode(b"j\xf6rg"), "is not UTF-8; choose")],
)
def test_a_name_that_kafka_cannot_use_is_rejected_before_anything_is_created(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(org_local.LocalStackError, match=reason):
        org_local.start(tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises(org_local.LocalStackError, match=f"data in {tmp_path}/data cannot start: .*File exists"):
        org_local.start(tmp_path / "data")
