"""HTTP and MCP: what people and agents use."""
