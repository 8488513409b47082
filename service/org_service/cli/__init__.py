"""The `orgs` command. Results go to standard output, everything else to standard error."""


def main() -> None:
    """Run the command line."""
    try:
        from org_service.cli.app import app
        from org_service.cli.shell import accept_any_encoding
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # before there was anything to interrupt

    accept_any_encoding()
    app(prog_name="orgs")
