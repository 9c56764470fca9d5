"""Check a client, a server or a proxy, in any language, by its behaviour on its sockets.

1. `contract.py`: the required behaviour, a TOML file. `oracle.py`: the correct reply to each message.
2. `suites/`: the cases, as one table a suite, and their stimuli; `case.py`: what a case is, and its verdicts.
3. `subjects/server_under_test.py`: a server, started for each case or already running;
   `subjects/client_under_test.py`: a client; `subjects/process.py`: a process and its output.
   `subjects/proxy_under_test.py`: a proxy, between a client and an upstream (`subjects/upstream.py`), which
   are both the checker's.
4. `subjects/server_context.py`: a running case, which records (`transcript.py`) the traffic of its sockets
   (`subjects/recorded_socket.py`).
5. `runner.py`: runs the cases; `results.py`: their outcomes; `reports/`: the output formats.

Rank 4: imports the client side, and services as the reference for replies, but no engine: the servers of
bothends are judged like any other.
"""
