"""Network impairments (toxics), one per file, sans-IO: see `base`, `latency`, then `pipeline`. Rank 1."""
