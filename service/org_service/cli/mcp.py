"""`orgs mcp`: the tools for agents, for a client that starts a program and speaks with it."""

from org_service.cli import shell


def mcp() -> None:
    """Serve MCP over standard input and output, as the user of ORGS_TOKEN, on the HTTP API at ORGS_API_URL.

    For agents that start their tools as programs; others use the API's URL with the path /mcp. It exits when its input
    ends. Standard output carries only the protocol; logs go to standard error.

    Example: `ORGS_API_URL=https://orgs.example.com ORGS_TOKEN=… orgs mcp`
    """
    import httpx2

    from org_service.edge.mcp.server import serve_stdio
    from org_service.telemetry.logs import set_up_logging

    settings = shell.load_settings()
    wrong = _wrong_token(settings.token.get_secret_value())
    if wrong is not None:
        shell.fail(f"ORGS_TOKEN {wrong}", shell.USAGE)
    set_up_logging(settings.log)
    try:
        shell.run(serve_stdio(settings))
    except httpx2.InvalidURL as error:
        shell.fail(f"ORGS_API_URL is invalid: {error}.", shell.USAGE)


def _wrong_token(token: str) -> str | None:
    """What is wrong with a token that can't be a header; nothing of it is said."""
    if not token:
        return "is not set: it identifies the user that the agent acts for."
    for index, character in enumerate(token, 1):
        if not "\x21" <= character <= "\x7e":
            what = _describe(character)
            return f"is not a token: its character {index} is {what}. Is it one complete token, and nothing else?"
    return None


def _describe(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    return "white space" if character.isspace() else "not ASCII"
