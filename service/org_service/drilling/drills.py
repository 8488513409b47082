"""All drills, by name, those first that teach most with the least."""

from collections.abc import Mapping
from typing import Final

from org_service.drilling.bad_release import BadRelease
from org_service.drilling.drill import Drill
from org_service.drilling.foreign_writer import ForeignWriter
from org_service.drilling.lost_tail import LostTail
from org_service.drilling.parked_organization import ParkedOrganization
from org_service.drilling.restored_backup import RestoredBackup
from org_service.drilling.revoked_key import RevokedKey
from org_service.drilling.stuck_subscriber import StuckSubscriber
from org_service.drilling.wrong_record import WrongRecord

_ALL: Final = (
    ParkedOrganization(),
    BadRelease(),
    StuckSubscriber(),
    ForeignWriter(),
    WrongRecord(),
    LostTail(),
    RestoredBackup(),
    RevokedKey(),
)

DRILLS: Final[Mapping[str, Drill]] = {each.name: each for each in _ALL}
