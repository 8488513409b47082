"""`orgs mcp`: the tools for agents, for a client that starts a program and speaks with it."""

from org_service.cli import shell


def mcp() -> None:
    """Serve MCP over standard input and output, as the user of ORGS_TOKEN, on the HTTP API at ORGS_API_URL.

    For agents that start their tools as programs; others use the API's own address, with /mcp behind it. It ends with
    its input. Standard output holds nothing but the protocol; logs go to standard error.

    Example: `ORGS_API_URL=https://orgs.example.com ORGS_TOKEN=… orgs mcp`
    """
    from org_service.edge.mcp import serve_stdio
    from org_service.telemetry import set_up_logging

    settings = shell.load_settings()
    if not settings.token.get_secret_value():
        shell.fail("ORGS_TOKEN isn't set: it names the user that the agent acts for.", shell.USAGE)
    set_up_logging(settings.log)
    shell.run(serve_stdio(settings))
