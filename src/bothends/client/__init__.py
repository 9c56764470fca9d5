"""The other end: `blocking` and `asyncio` (the same verbs, waiting in their own way), `misbehave`. Rank 2."""
