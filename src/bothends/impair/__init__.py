"""A proxy that applies toxics to connections and datagram sessions: see `link`, then `proxy`. Rank 2."""
