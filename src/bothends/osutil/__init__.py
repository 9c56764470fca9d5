"""Operating-system helpers shared by several packages: processes, signals, namespaces, event loop. Rank 1."""
