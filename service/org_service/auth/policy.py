"""The policy in force: the file that the settings name, or the packaged one."""

from importlib import resources
from pathlib import Path
from typing import Final

from org_service.domain.policy import Policy, PolicyError, read_policy
from org_service.errors import ConfigurationError
from org_service.settings import AuthSettings

PACKAGED: Final = "policy.toml"


def load_policy(auth: AuthSettings) -> Policy:
    """Read the policy and check it whole.

    Raises:
        ConfigurationError: The file can't be read or has mistakes; each is named.
    """
    name = auth.policy_file or f"the packaged {PACKAGED}"
    try:
        content = (
            Path(auth.policy_file).read_bytes()
            if auth.policy_file
            else resources.files("org_service").joinpath(PACKAGED).read_bytes()
        )
        return read_policy(content.decode())
    except OSError as error:
        raise ConfigurationError(f"ORGS_AUTH__POLICY_FILE: {name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"ORGS_AUTH__POLICY_FILE: {name} is not UTF-8.") from error
    except PolicyError as error:
        raise ConfigurationError(f"ORGS_AUTH__POLICY_FILE: {name}: {error}.") from error
