"""Explain why running programs wait: the blocked calls, and the processes that could end them. Linux.

    model.py       threads, processes and sockets as values
    snapshot.py    reads all of them once, from /proc and the socket table
    wait_graph.py  joins them: which threads can end which wait, and which waits nothing can end (pure)
    problems/      one file for each kind of problem (pure)
    phrases.py     names, sizes and durations as text (pure)
    explain.py     describes one process, port or endpoint (pure)
    report.py      problems and descriptions as text and as JSON objects (pure)

Nothing is attached, stopped or written: /proc, sock_diag(7) and process_vm_readv(2) only read. The time limit
of a socket is read from a duplicate of its descriptor (pidfd_getfd(2)), which is closed at once.

Rank 3: imports `errors`, `escaping`, `endpoints`, `osutil` and `socket_table`.
"""

from bothends.why.model import Snapshot
from bothends.why.problems.problem import Problem
from bothends.why.report import Report, make_report
from bothends.why.snapshot import take_snapshot

__all__ = ["Problem", "Report", "Snapshot", "make_report", "take_snapshot"]
