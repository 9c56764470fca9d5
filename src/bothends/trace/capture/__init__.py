"""Sources of trace events: strace, packet capture, our own engines and clients. Start with `tracees.py`."""
