"""What a bad path does to bytes, one toxic a file, pure: see `base`, `latency`, then `pipeline`. Rank 1."""
