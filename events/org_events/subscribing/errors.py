"""What a subscriber raises, split by what to do about it."""

from uuid import UUID


class SubscriberError(Exception):
    """Whatever the kit's subscriber raises by itself."""


class Superseded(SubscriberError):
    """Another process has this partition now, or saved the change before: nothing was written. Go on with the next.

    Comes where a process was silent for so long that its partitions were given away, and where a commit was lost on its
    way back: what was really committed is found out, and nothing is done twice.
    """


class NotRunning(SubscriberError):
    """The call needs a subscriber that runs."""


class NotParked(SubscriberError):
    """Nothing of this organization is parked in this process: another one has its partition, or nothing failed."""

    def __init__(self, org_id: UUID) -> None:
        super().__init__(f"Nothing of {org_id} is parked here.")
        self.org_id = org_id


class StillParked(SubscriberError):
    """The handler raised again; this change and those behind it stay parked, in order.

    Attributes:
        org_id: Of the organization.
        version: Of the change that failed.
    """

    def __init__(self, org_id: UUID, version: int, error: Exception) -> None:
        super().__init__(f"Version {version} of {org_id} fails again: {error!r}")
        self.org_id = org_id
        self.version = version
