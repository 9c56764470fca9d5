"""Sources of trace events: strace, packets, and events of engines and clients. Start with `tracees.py`."""
