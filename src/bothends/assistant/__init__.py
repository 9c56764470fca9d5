"""Serve an assistant over the Model Context Protocol: run programs, read their timeline, ask why, check."""
