"""Tools for agents (MCP), a thin layer over the API."""
