"""What the guarantees stand on in Postgres. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from org_service.operate.doctoring.facts import ROLES, Postgres
from org_service.operate.doctoring.findings import Finding, Verdict, holds
from org_service.store.migrate import VERSION_MIN
from org_service.store.server import Right

CLOCK_WEAK_S: Final = 5.0
"""Leases, plans' times-to-live and tokens' `ORGS_AUTH__LEEWAY_S` are not less."""
CLOCK_VOID_S: Final = 60.0
_ON: Final[Mapping[str, tuple[tuple[int, ...], str]]] = {
    "fsync": ((3, 4, 6), "after a power loss the database may lack what was published, or be broken"),
    "full_page_writes": ((3, 6), "a power loss while a page is written breaks the page"),
}
_OFF: Final[Mapping[str, tuple[tuple[int, ...], str]]] = {
    "ignore_checksum_failure": ((3, 5), "broken pages are read as if they were whole"),
    "zero_damaged_pages": ((3, 5), "broken pages are emptied in silence"),
    "default_transaction_read_only": ((6,), "nothing can be written"),
}
_MUST: Final = {
    Right("orgs_worker", "journal", "INSERT"),
    Right("orgs_worker", "organization", "INSERT"),
    Right("orgs_worker", "parked", "INSERT"),
    *(Right(role, "journal", "SELECT") for role in ("orgs_worker", "orgs_relay", "orgs_edge", "orgs_reader")),
}
_MUST_NOT: Final = {
    *(
        Right(role, table, privilege)
        for role in ("orgs_relay", "orgs_edge", "orgs_reader")
        for table in ("organization", "journal", "journal_head", "parked")
        for privilege in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
    ),
    *(Right(role, "journal", each) for role in ("orgs_worker", "orgs_operate") for each in ("DELETE", "TRUNCATE")),
    Right("orgs_worker", "journal", "UPDATE"),
    *(Right("orgs_worker", "organization", each) for each in ("DELETE", "TRUNCATE")),
}


def judge(found: Postgres) -> Iterator[Finding]:
    """All findings about the database."""
    yield _version(found)
    yield _schema(found)
    yield from _switches(found.settings)
    yield _checksums(found.settings)
    yield _commits(found)
    yield _standbys(found)
    yield from _roles(found)
    yield _clock(found.clock_ahead_s)


def _version(found: Postgres) -> Finding:
    about, version = "PostgreSQL", found.state.version
    if int(found.settings["server_version_num"]) < VERSION_MIN * 10_000:
        return Finding((6,), about, Verdict.VOID, version, f"upgrade to PostgreSQL {VERSION_MIN} or newer")
    if found.state.standby:
        advice = "let ORGS_DATABASE__URL lead to the primary"
        return Finding((3, 6), about, Verdict.VOID, f"{version}, a standby", advice)
    return holds((3, 6), about, f"{version}, a primary")


def _schema(found: Postgres) -> Finding:
    if found.lacking is not None:
        return Finding((1, 2, 3, 6), "schema", Verdict.VOID, found.lacking, "run `orgs migrate` of this release")
    return holds((1, 2, 3, 6), "schema", "of this release")


def _switches(settings: Mapping[str, str]) -> Iterator[Finding]:
    for wanted, switches in (("on", _ON), ("off", _OFF)):
        for name, (guarantees, harm) in switches.items():
            if (now := settings.get(name)) is None:
                yield Finding(guarantees, name, Verdict.UNKNOWN, "not shown", f"see that {name} is {wanted}")
            elif now != wanted:
                yield Finding(
                    guarantees,
                    name,
                    Verdict.VOID,
                    f"{now}: {harm}",
                    f"ALTER SYSTEM SET {name} = {wanted}, then SELECT pg_reload_conf()",
                )
            else:
                yield holds(guarantees, name, now)


def _checksums(settings: Mapping[str, str]) -> Finding:
    if settings.get("data_checksums") == "on":
        return holds((3, 5), "data_checksums", "on")
    advice = "stop Postgres, run pg_checksums --enable, and start it"
    return Finding((3, 5), "data_checksums", Verdict.WEAK, "off: a disk that lies is not noticed", advice)


def _commits(found: Postgres) -> Finding:
    about, settings = "synchronous_commit", found.worker
    if settings is None:
        return Finding(
            (3, 6),
            about,
            Verdict.UNKNOWN,
            "our login may not be a worker",
            "run this with a login that is a member of orgs_worker",
        )
    isolation = settings["default_transaction_isolation"]
    if isolation != "read committed":
        return Finding((1,), "isolation", Verdict.VOID, isolation, "remove the setting from role or database")
    now = settings[about]
    if now in ("on", "remote_apply"):
        return holds((3, 6), about, f"{now} in a worker's session")
    return Finding(
        (3, 6),
        about,
        Verdict.VOID,
        f"{now} in a worker's session: what was acknowledged may be lost",
        "let no pooler or option of ORGS_DATABASE__URL change it",
    )


def _standbys(found: Postgres) -> Finding:
    about, names = "synchronous_standby_names", found.settings.get("synchronous_standby_names", "")
    if not names:
        return Finding(
            (3, 4, 6),
            about,
            Verdict.WEAK,
            "empty: a failover, or a lost disk, takes back what was published",
            "add a standby, and name it in synchronous_standby_names",
        )
    if found.synchronous_standbys is None:
        advice = "grant our login pg_monitor"
        return Finding((3, 6), about, Verdict.UNKNOWN, f"{names}; whether one follows is not shown", advice)
    if not found.synchronous_standbys:
        return Finding((6,), about, Verdict.WEAK, f"{names}, and none follows: commits wait", "start a standby")
    return holds((3, 4, 6), about, f"{names}, {found.synchronous_standbys} in step")


def _roles(found: Postgres) -> Iterator[Finding]:
    if found.state.superuser:
        yield Finding(
            (3, 8, 9),
            "login",
            Verdict.WEAK,
            "a superuser: processes that log in so are kept from nothing",
            "log in as a user who is a member of the group roles, and no superuser",
        )
    missing = sorted(set(ROLES) - found.assumable)
    if missing:
        advice = f"GRANT {', '.join(missing)} TO the login, or run this with the logins of the processes"
        yield Finding((3, 8), "roles", Verdict.UNKNOWN, f"our login may not be {', '.join(missing)}", advice)
    lacking, excess = _MUST - found.rights, _MUST_NOT & found.rights
    for right in sorted(lacking):
        advice = f"GRANT {right.privilege} ON {right.table} TO {right.role}"
        yield Finding((2, 3), "rights", Verdict.VOID, f"{right.role} may not {right.privilege} {right.table}", advice)
    for right in sorted(excess):
        advice = f"REVOKE {right.privilege} ON {right.table} FROM {right.role}"
        yield Finding((2, 3, 8), "rights", Verdict.VOID, f"{right.role} may {right.privilege} {right.table}", advice)
    if not lacking and not excess:
        yield holds((2, 3, 8), "rights", "each role has its own and no more")


def _clock(ahead_s: float) -> Finding:
    off_s = abs(ahead_s)
    said = f"{ahead_s:+.1f} s against this machine's"
    if off_s <= CLOCK_WEAK_S:
        return holds((9,), "clock of the database", said)
    verdict = Verdict.WEAK if off_s <= CLOCK_VOID_S else Verdict.VOID
    return Finding((9,), "clock of the database", verdict, said, "let both machines follow NTP")
