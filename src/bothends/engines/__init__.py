"""Engines: how a server waits for many peers. `base` is the contract, `registry` the table. Rank 2."""
