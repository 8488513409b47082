"""The `orgs` command. Results go to standard output, everything else to standard error."""


def main() -> None:
    """Run the command line."""
    from org_service.cli.app import app

    app(prog_name="orgs")
