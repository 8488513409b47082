"""The kinds of operations, and making one again from what was kept of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from org_service.errors import PreconditionError
from org_service.operate.accept_writes import AcceptWrites
from org_service.operate.apply_file import ApplyFile
from org_service.operate.erase import Erase
from org_service.operate.grow_topics import GrowTopics
from org_service.operate.journal import JournalAdvance
from org_service.operate.offsets import ResetOffsets
from org_service.operate.operation import Tool
from org_service.operate.parked import DiscardParked, ReleaseParked
from org_service.operate.parked_contents import RevealParked
from org_service.operate.parked_edit import EditParked
from org_service.operate.replay_commands import ReplayCommands
from org_service.operate.replay_events import ReplayEvents
from org_service.operate.restoring.restore import Rebuild, Recover
from org_service.operate.undo import Undo
from org_service.operate.verifying.repair import Repair
from org_service.settings import Settings

_TOOLS: Final[Mapping[str, Callable[[Settings, Mapping[str, Any]], Tool]]] = {
    AcceptWrites.kind: AcceptWrites,
    ApplyFile.kind: ApplyFile,
    Erase.kind: Erase,
    GrowTopics.kind: GrowTopics,
    JournalAdvance.kind: JournalAdvance,
    ReplayCommands.kind: ReplayCommands,
    ReplayEvents.kind: ReplayEvents,
    Repair.kind: Repair,
    ReleaseParked.kind: ReleaseParked,
    DiscardParked.kind: DiscardParked,
    EditParked.kind: EditParked,
    ResetOffsets.kind: ResetOffsets,
    RevealParked.kind: RevealParked,
    Rebuild.kind: Rebuild,
    Recover.kind: Recover,
    Undo.kind: Undo,
}


def make_tool(settings: Settings, kind: str, parameters: Mapping[str, Any]) -> Tool:
    """Make a tool again from what was kept of it.

    Raises:
        PreconditionError: This release doesn't know the kind.
    """
    tool = _TOOLS.get(kind)
    if tool is None:
        raise PreconditionError(f"this release knows no operation {kind!r}: run it with the release that planned it.")
    return tool(settings, parameters)
