"""A proxy that puts toxics between two endpoints: see `loop`, `direction`, then `proxy`. Rank 2."""
