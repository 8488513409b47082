"""The statements that every command, event, request and fact costs, each with what a process would ask for.

A batch of the worker has the parameters of `batch` commands, everything else those of one request.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from org_events.reference import Role as UserRole
from org_service.domain.organization import name_key
from org_service.store.engine import Role
from tests.bench.edge_data import STAFF
from tests.bench.plan_data import PARTITIONS, QUEUE, TOPICS, PlanData

RELAY_ROWS: Final = 4_000
"""`relay.batch_rows_max` as it comes."""
_PAGE: Final = 51
"""A page of 50, and whether there is another."""
_NOW: Final = datetime.now(UTC)
_MEMBER: Final = "user0"
"""Of some organizations, and through the first, which is a partner, of ten more."""
_PARTNER_EVERY: Final = 100
_CLAIM_EVERY: Final = 10
"""One command in so many claims a name."""


class Hot(NamedTuple):
    """A statement as a process runs it."""

    statement: str
    """Its name, as in `docs/sql`."""
    role: Role
    parameters: Mapping[str, Any]
    """By name; those with a value of their own are left out."""
    about: str
    """What is asked for."""


def hot_statements(data: PlanData, batch: int) -> Iterator[Hot]:
    """Each hot statement once."""
    numbers = random.Random(7)
    places = sorted(numbers.sample([place for place in range(data.organizations) if data.is_there(place)], k=batch))
    yield from _of_requests(data)
    yield from _of_lists(data)
    rows = {"position": data.organizations // 2, "limit": RELAY_ROWS}
    yield Hot("journal/read_after", "relay", rows, f"the next {RELAY_ROWS:,} rows")
    # Those that write come last: what they take back is in the way of those that read an index alone.
    yield from _of_decisions(data, places)
    yield from _of_facts(data, places)
    yield from _of_commands(data, places)


def _of_commands(data: PlanData, places: Sequence[int]) -> Iterator[Hot]:
    """What a worker locks, looks up and writes."""
    ids = [data.ids[place] for place in places]
    keys = [name_key(data.names[place]) for place in places[::_CLAIM_EVERY]]
    many = f"a batch of {len(ids)} organizations"
    claims = f"{many}, {len(keys)} names"
    yield Hot("organizations/lock", "worker", {"ids": ids}, many)
    yield Hot("organizations/lock_with_holders", "worker", {"ids": ids, "keys": keys}, claims)
    yield Hot("organizations/find_holders", "worker", {"keys": keys}, f"{len(keys)} names")
    written: dict[str, Any] = {
        "given_id": ids,
        "given_name": [data.names[place] for place in places],
        "given_name_key": [name_key(data.names[place]) for place in places],
        "given_domain": [f"changed{place}.com" for place in places],
        "given_primary_address": ['{"city": "Oslo"}' for _ in places],
        "given_deactivated_at": [None for _ in places],
        "given_deleted_at": [None for _ in places],
        "given_version": [2 for _ in places],
    }
    yield Hot("organizations/update", "worker", written | {"given_moment": _NOW}, many)
    names = [f"New {place}" for place in places]
    created = {
        "given_id": [UUID(int=place, version=4) for place in places],
        "given_name": names,
        "given_name_key": [name_key(name) for name in names],
        "given_created_at": [_NOW for _ in places],
        "given_updated_at": [_NOW for _ in places],
        "given_version": [1 for _ in places],
    }
    yield Hot("organizations/insert", "worker", written | created, many)


def _of_decisions(data: PlanData, places: Sequence[int]) -> Iterator[Hot]:
    """What a worker asks and notes of the commands themselves, and of who sends them."""
    ids = [data.ids[place] for place in places]
    # One in twenty was decided already.
    commands = [data.command_id(place if number % 20 == 0 else -place - 1) for number, place in enumerate(places)]
    many = f"a batch of {len(ids)} commands"
    queues = data.with_parked[:2]
    yield Hot("outcomes/find_journaled", "worker", {"ids": commands}, many)
    asked = {"asked_org_id": [*ids[2:], *queues], "ids": commands, "param_1": None}
    yield Hot("parked/find", "worker", asked, f"{many}, of {len(queues)} organizations with parked ones")
    yield Hot(
        "parked/count_waiting",
        "worker",
        {"asked_org_id": queues, "rows_max": 1_000},
        f"{len(queues)} organizations with {QUEUE} parked commands each",
    )
    yield Hot("parked/park", "worker", _parked(data.ids[0]), "one record")
    yield Hot("parked/count_defects", "worker", {}, "all records")
    yield Hot("journal/take_positions", "worker", {"rows": len(ids)}, many)
    users = [f"user{place % data.users}" for place in places]
    yield Hot("relations/find_staff", "worker", {"users": users}, f"{len(users)} users")
    pairs = {"asked_user_id": users, "asked_org_id": ids}
    yield Hot("relations/find_memberships", "worker", pairs, f"{len(users)} users, each in an organization")
    yield Hot("relations/find_partners", "worker", {"ids": ids}, f"{len(ids)} organizations")
    partners = [data.ids[place] for place in range(0, data.organizations, data.organizations // 5)]
    yield Hot("relations/find_clients", "worker", {"ids": partners}, f"{len(partners)} organizations")


def _parked(org_id: UUID) -> dict[str, Any]:
    return {
        "topic": "orgs.commands",
        "partition": 0,
        "offset": -1,
        "broker_time": _NOW,
        "key": None,
        "value": None,
        "headers": "[]",
        "org_id": org_id,
        "command_id": UUID(int=1),
        "request_digest": None,
        "reason": "handler_raised",
        "detail": "ZeroDivisionError",
        "attempts": 1,
        "state": "open",
        "recorded_at": _NOW,
        "actor": None,
        "authenticated_by": None,
        "value_bytes": None,
        "value_sha256": None,
    }


def _of_facts(data: PlanData, places: Sequence[int]) -> Iterator[Hot]:
    """What a worker does with reference data."""
    ids = [data.ids[place] for place in places]
    users = [f"user{place % data.users}" for place in places]
    many = f"a batch of {len(ids)}"
    roles = [UserRole.USER for _ in ids]
    membership = {"given_user_id": users, "given_org_id": ids}
    rest = {"given_role": roles, "given_joined_at": [_NOW for _ in ids], "given_active": [True for _ in ids]}
    yield Hot("facts/memberships_upsert", "worker", membership | rest, many)
    yield Hot("facts/memberships_delete", "worker", membership, many)
    partners = [data.ids[place - place % _PARTNER_EVERY] for place in places]
    partnership = {"given_partner_org_id": partners, "given_org_id": ids}
    yield Hot("facts/partnerships_upsert", "worker", partnership | {"given_role": roles}, many)
    yield Hot("facts/partnerships_delete", "worker", partnership, many)
    yield Hot("facts/staff_upsert", "worker", {"given_user_id": users[:10]}, "a batch of 10")
    yield Hot("facts/staff_delete", "worker", {"given_user_id": users[:10]}, "a batch of 10")
    parts = [(topic, partition) for topic in TOPICS for partition in range(PARTITIONS)]
    which = {"given_topic": [topic for topic, _ in parts], "given_partition": [partition for _, partition in parts]}
    all_of = f"all {len(parts)} partitions"
    yield Hot("reference_progress/lock", "worker", which, all_of)
    advanced = {
        "given_topic_id": [UUID(int=1) for _ in parts],
        "given_next_offset": [1 for _ in parts],
        "given_leader_epoch": [1 for _ in parts],
    }
    yield Hot("reference_progress/write", "worker", which | advanced, all_of)


def _of_requests(data: PlanData) -> Iterator[Hot]:
    """What an edge asks for one organization or command."""
    client, command = data.ids[1], data.command_id(data.organizations // 2)
    yield Hot("directory/find", "edge", {"user_id": _MEMBER, "org_id": client}, "a client of the user's organization")
    yield Hot("outcomes/find", "edge", {"command_id": command}, "a command that was decided")
    remembered = {"command_id": UUID(int=1), "actor": "user:user0", "org_id": client, "now": _NOW}
    remembered |= {"partition": 0, "offset": 1, "kept_from": _NOW - timedelta(days=14)}
    yield Hot("accepted/remember", "edge", remembered, "one command")
    history = {"org_id": data.ids[4], "after_version": 0, "limit": _PAGE}
    yield Hot("journal/read_history", "edge", history, "the first page")
    yield Hot("relations/is_staff", "edge", {"user_id": STAFF[0]}, "one user")


def _of_lists(data: PlanData) -> Iterator[Hot]:
    """What an edge lists."""
    search = {"search_from": "ma", "search_to": "mb"}
    rare = {"search_from": name_key(data.names[1]), "search_to": name_key(data.names[1]) + "0"}
    middle = {"after_name_key": name_key(data.names[data.organizations // 2])}
    mine = {"user_id": _MEMBER, "rows_max": _PAGE}
    yield Hot("lists/list_related", "edge", mine, "the first page of a user")
    yield Hot("lists/list_related_searched", "edge", mine | search, "a search of a user")
    all_of = {"user_id": STAFF[0], "rows_max": _PAGE}
    yield Hot("lists/list_active", "edge", all_of, "the first page")
    yield Hot("lists/list_active_following", "edge", all_of | middle, "a page in the middle")
    yield Hot("lists/list_active_searched", "edge", all_of | rare, "a search that finds one, after all others")
    yield Hot("lists/list_active_by_time", "edge", all_of, "the first page")
    yield Hot("lists/list_active_by_time_searched", "edge", all_of | search, "a search that finds many")
