"""A client that reads lines from you, sends each, and prints the answer. An empty line ends it.

Run it:
    bothends serve upper tcp://:12000
    python examples/ask.py tcp://127.0.0.1:12000
"""

import sys

from bothends import connect

with connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:12000") as connection:
    print(f"{connection.local} -> {connection.peer}")
    while line := input("say: "):
        print("answer:", connection.request(line).decode())
