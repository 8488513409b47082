"""Ids to choose: those of commands are in order of time, those of organizations follow from the publisher's own."""

import os
import subprocess
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org_events import CreateOrganization, org_id_for, uuid7
from org_events.commands import RESERVED_IDS
from org_events.ids import TimeOrderedIds

_FORKING = """
import os, time
time.time_ns = lambda: 1_700_000_000_000_000_000
from org_events import uuid7
uuid7()
if child := os.fork():
    os.waitpid(child, 0)
print(uuid7(), flush=True)
"""
_TEXTS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=50)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=50))
def test_ids_are_in_order_and_of_version_7_whatever_the_clock_does(steps: list[int]) -> None:
    times = accumulate(steps, initial=1_700_000_000_000)
    maker = TimeOrderedIds(lambda: next(times) * 1_000_000)
    made = [maker.make() for _ in steps]
    assert made == sorted(set(made))
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}


def test_ids_of_all_threads_are_in_the_order_in_which_they_were_made() -> None:
    """Each thread publishes what it made before it makes the next one: no id may be below what was seen before."""
    lock, seen, wrong = threading.Lock(), [UUID(int=0)], list[tuple[UUID, UUID]]()

    def make() -> None:
        for _ in range(2_000):
            with lock:
                highest = seen[-1]
            made = uuid7()
            if made <= highest:
                wrong.append((highest, made))
            with lock:
                seen.append(max(seen[-1], made))

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(make) for _ in range(8)]:
            each.result()
    assert not wrong


def test_threads_never_make_the_same_id_though_chance_gives_them_the_same_bits() -> None:
    maker = TimeOrderedIds(random=lambda _: 0)
    with ThreadPoolExecutor(8) as pool:
        made = [each for some in pool.map(lambda _: [maker.make() for _ in range(2_000)], range(8)) for each in some]
    assert len(set(made)) == 16_000


def test_an_id_begins_with_the_time_in_milliseconds() -> None:
    before_ms = time.time_ns() // 1_000_000
    assert before_ms <= uuid7().int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_a_full_counter_goes_on_in_the_next_millisecond() -> None:
    maker = TimeOrderedIds(lambda: 1_700_000_000_000 * 1_000_000, lambda _: (1 << 42) - 1 if not made else 0)
    made: list[UUID] = []
    made.append(maker.make())
    made.append(maker.make())
    assert [each.int >> 80 for each in made] == [1_700_000_000_000, 1_700_000_000_001]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_does_not_count_on_from_its_parent() -> None:
    """Two that did would have only the random bits between them and one id, for as long as the millisecond lasts."""
    ended = subprocess.run([sys.executable, "-c", _FORKING], capture_output=True, text=True, check=True)
    counts = [UUID(line).int >> 32 for line in ended.stdout.split()]
    assert len(set(counts)) == 2


def test_an_organization_has_the_same_id_for_the_same_own_id_today_and_elsewhere() -> None:
    """By hand: `python3 -c "import uuid; print(uuid.uuid5(uuid.UUID('575fe080-…'), '/billing\\0A-17'))"`."""
    assert org_id_for("/billing", "A-17") == UUID("663dc935-39d0-598d-818b-f8701fbd2836")
    assert org_id_for("/billing", 42) == org_id_for("/billing", "42") == UUID("cadc960f-6aeb-5a7c-9bc5-319846ec0353")
    assert org_id_for("/billing", UUID(int=1)) == org_id_for("/billing", "00000000-0000-0000-0000-000000000001")
    assert org_id_for("/billing", "caf\u00e9") == org_id_for("/billing", "cafe\u0301")


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS)
def test_two_own_ids_never_name_one_organization(namespace: str, own_id: str, namespace2: str, own_id2: str) -> None:
    def form(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    same = (form(namespace), form(own_id)) == (form(namespace2), form(own_id2))
    assert (org_id_for(namespace, own_id) == org_id_for(namespace2, own_id2)) is same
    assert org_id_for(f"{namespace}x", own_id) != org_id_for(namespace, f"x{own_id}")


@given(_TEXTS, _TEXTS | st.integers() | st.uuids())
def test_every_derived_id_may_be_that_of_an_organization(namespace: str, own_id: str | int | UUID) -> None:
    org_id = org_id_for(namespace, own_id)
    assert CreateOrganization(org_id=org_id, name="Acme").org_id == org_id
    assert org_id not in RESERVED_IDS


@pytest.mark.parametrize("own_id", ["", " 7", "7\n", "a\0b", "\ud800", "a\u2028b"])
def test_an_own_id_that_may_have_been_read_wrongly_is_an_error(own_id: str) -> None:
    with pytest.raises(ValueError, match="own_id must be printable text"):
        org_id_for("/billing", own_id)
    with pytest.raises(ValueError, match="namespace must be printable text"):
        org_id_for(own_id, "7")


def test_true_is_not_an_own_id() -> None:
    with pytest.raises(TypeError, match="not a bool"):
        org_id_for("/billing", True)
