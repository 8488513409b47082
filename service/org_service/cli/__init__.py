"""The `orgs` command."""


def main() -> None:
    """Run the command line."""
