"""What all groups of settings have in common."""

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """A group: its values don't change, and an unknown name in it is rejected, so that a typo can't pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")
