"""Services: what is said, sans-IO. `base` is the contract, `registry` the table of names. Rank 1."""
