"""The `orgs` command. Results go to standard output, everything else to standard error."""


def main() -> None:
    """Run the command line."""
    from org_service.cli.app import app
    from org_service.cli.shell import accept_any_encoding

    accept_any_encoding()
    app(prog_name="orgs")
