"""Bench: how fast a server answers, how fast its clients hear of it, and whether that can be believed.

How this package works, each file importing only those above it (rank 4, and never an engine: a target is
an address or a command, so a server in any language is measured alike):

1. `schedule.py` (when requests are due), `workload.py` (what is sent and what must come), `histogram.py`
   (latencies) and `results.py` (what is kept, in a version of its own) are pure.
2. `request_tracker.py` is one connection's bookkeeping without the connection: which requests are open,
   and what was wrong with each answer. Every byte that comes is compared.
3. `base.py` says what a generator is asked for and what it gives. There are two: `python.py` is one thread
   with epoll, for every transport; `native.py` is the face of the one in C, where it was built.
4. `dialer.py` opens connections for the former; `load.py` chooses a generator, runs it round after round
   and judges whether it was itself the limit.
5. `text.py`, `html.py` and `plots.py` show results; `significance.py` compares two.
"""
