"""The group `log`."""

from typing import Literal

from pydantic import Field

from org_service.settings.group import SettingsGroup


class LogSettings(SettingsGroup):
    """What is written, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, otherwise json"
    )
