"""`bothends check record`, and judging by comparison with a reference server."""
