"""Client connections: `blocking` and `asyncio` have the same methods; `faults` misbehaves. Rank 2."""
