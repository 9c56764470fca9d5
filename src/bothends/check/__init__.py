"""check: judges a client or a server, in whatever language, by what it does on its sockets.

1. `contract.py`: what the program should do, a file in TOML. `oracle.py`: which reply is right.
2. `suites/`: the cases, one table a file; `case.py`: what a case is, and its verdicts.
3. `subjects/server_under_test.py`: a server, started for one case or running already; `subjects/process.py`:
   a process and what it prints.
4. `subjects/server_context.py`: one case under way, which records what was said (`transcript.py`) on its
   sockets (`subjects/recorded_socket.py`).
5. `runner.py`: which cases run when; `results.py`: how it ended; `reports/`: how that is shown.

Rank 4: imports the client's side, services as the measure of a reply, never an engine: a server in any
language is judged alike, ours as well.
"""
