"""Engines: how a server waits for many peers. `base` has the contract, `registry` the table. Rank 2."""
