"""Why something was set aside, lost, repeated or skipped: the words of tables, metrics, logs and pages.

The CHECK constraints and the partial indexes of the tables are made from these, so a new member needs a migration.
"""

from enum import StrEnum


class ParkReason(StrEnum):
    """Why a record is parked."""

    UNREADABLE = "unreadable"
    """Not even its id, or the fact, can be read; or it exceeds a bound."""
    HANDLER_RAISED = "handler_raised"
    """Our own code raised on it: a defect."""
    DATA_REFUSED = "data_refused"
    """Postgres refuses its data."""
    QUEUED_BEHIND = "queued_behind"
    """An earlier command of the same organization is parked."""
    WRONG_PARTITION = "wrong_partition"
    """A fact whose publisher used another partitioner."""


class ParkedState(StrEnum):
    """What an operator did with a parked record."""

    OPEN = "open"
    RELEASED = "released"
    DISCARDED = "discarded"


class AuthenticatedBy(StrEnum):
    """Who says whose command a parked one is."""

    TOKEN = "token"  # noqa: S105 - a word
    PUBLISHER = "publisher"


class LossReason(StrEnum):
    """Why offsets are gone."""

    EXPIRED = "expired"
    """Deleted before they were read."""
    TRUNCATED = "truncated"
    """The log lost its end, and gives these offsets out again."""
    RECREATED = "recreated"
    """The topic was deleted and created again."""


class RepeatReason(StrEnum):
    """Why a batch is tried again."""

    OUTAGE = "outage"
    REFOLD = "refold"
    """Another worker got in between."""
    HALVED = "halved"
    """The database rejects data of it."""
    TOO_SLOW = "too_slow"
    """A statement took too long; halved as well."""
    UNKNOWN = "unknown"


class TripReason(StrEnum):
    """Why the breaker tripped."""

    NOTHING_DECIDED = "nothing_decided"
    """Our code raises even on commands that are known to be good."""
    MANY_FAILURES = "many_failures"
    """It raised on too many of the last commands, of too many organizations."""
    STILL_FAILING = "still_failing"
    """It had tripped before, and the commands that were tried since failed as well."""


class SkipReason(StrEnum):
    """Why a record of a command changes nothing."""

    REDELIVERED = "redelivered"
    DUPLICATE = "duplicate"
    PARKED = "parked"
    COMMAND_ID_REUSED = "command_id_reused"


class AcceptReason(StrEnum):
    """Why a change is answered with 202."""

    ASKED_FOR = "asked_for"
    TIMED_OUT = "timed_out"


class SpanFate(StrEnum):
    """What became of a span."""

    EXPORTED = "exported"
    QUEUE_FULL = "queue_full"
    """Dropped: the collector was away, or too slow, for too long."""
    REJECTED = "rejected"
    """Dropped: the collector doesn't want it."""
    LEFT = "left"
    """Dropped as the process ended: the collector did not take it in time."""


class OperationState(StrEnum):
    """Where an operation stands."""

    PLANNED = "planned"
    """Nothing was done yet; a plan that is not run in time can't be run any more."""
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    """It can't go on; what it did before stands."""
    CANCELLED = "cancelled"


class TicketKind(StrEnum):
    """What a browser proves with a secret of the operators' page."""

    LINK = "link"
    """Worth one session, once."""
    SESSION = "session"


class ConsoleAct(StrEnum):
    """What somebody did on the operators' page; kept before it is done."""

    SIGNED_IN = "signed_in"
    SIGNED_OUT = "signed_out"
    APPROVED = "approved"
    RUN = "run"
    """Begun, or resumed."""
    PAUSED = "paused"
    CANCELLED = "cancelled"
    REVEALED = "revealed"
    PLANNED = "planned"
    """The one act that is kept after it is done: a plan changes nothing, and is a row of its own."""
