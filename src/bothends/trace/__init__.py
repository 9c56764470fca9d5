"""What programs call and what goes over the wire because of it, on one time-line.

Rank 2: imports endpoints, errors and text. Read `model.py` first, then in the order in which a run
flows: `strace.py` (text to lines), `calls.py` (lines to calls), `packets.py` (bytes to packets),
`correlator.py` (which call's bytes a packet carries), `timeline.py` (cause before effect), `terminal.py`.
"""
