"""Trace the system calls of programs, and the packets between them, on one timeline.

Start with `model.py`, then follow a run: `capture/` reads strace's output and packets, `correlation/` links
and orders them, `findings/` looks for mistakes, and `rendering/` draws. `session.py` runs the programs;
`trace_file.py` is the file format.
"""
