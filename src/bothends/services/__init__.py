"""Services, sans-IO: `base` has the contract, `registry` the table of names. Rank 1."""
