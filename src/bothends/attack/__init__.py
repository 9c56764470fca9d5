"""Attack a server that is one's own, while an honest client measures what others notice.

permission.py    which addresses may be attacked
expectation.py   what a right answer is: learned from the server while nothing else goes on. Pure
honest.py        the honest client: its answers and latencies are the verdict
attacks/         the attacks, one file each; `registry.py` has the table
attacker.py      what an attack is made of: bounded sockets, a seed and a deadline
attacker_process.py   the process that attacks, apart from the honest client
health.py        memory, descriptors, threads and processor of the server
judging.py       from figures to held, degraded or failed. Pure
campaign.py      one attack after the other, each with a server of its own if it can be started
results.py       the outcomes as values, and as a result of `bothends check` for its reports

Rank 5: starts, watches and reports on a server as `check` does.
"""
