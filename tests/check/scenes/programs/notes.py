"""A server of notes in lines: `notes.py PORT FOLDER [MISTAKE]`, with a thread for each connection.

HELLO NAME is answered by HI NAME, PAGE by 1,000 characters, NOTE TEXT by OK, and LIST by all notes, which
a file in the folder keeps. UDP: ADD NUMBER COUNT is answered by the sum, and a COUNT that comes again by the
same sum.
"""

from __future__ import annotations

import select
import signal
import socketserver
import sys
import threading
from pathlib import Path

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2]) / "notes"
MISTAKE = sys.argv[3] if len(sys.argv) > 3 else ""
lock = threading.Lock()
notes: list[str] = []
sums: dict[str, int] = {}
clients: set[object] = set()


def answer(line: str) -> str:
    word, _, rest = line.partition(" ")
    if word == "NOTE":
        notes.append(rest)
        if MISTAKE != "forgets":
            FILE.write_text("\n".join(notes))
    return {"HELLO": f"HI {rest}", "PAGE": "x" * 1000, "NOTE": "OK", "LIST": ", ".join(notes)}[word]


class Handler(socketserver.StreamRequestHandler):
    rbufsize = 0

    def handle(self) -> None:
        clients.add(self)
        try:
            while len(clients) <= 30 or MISTAKE != "thirty-clients":
                select.select([self.request], [], [])
                if MISTAKE == "blocking-read":
                    with lock:
                        line = self.rfile.readline()
                else:
                    line = self.rfile.readline()
                if not line:
                    break
                reply = f"{answer(line.decode().rstrip())}\n".encode()
                if MISTAKE == "blocking-send":
                    with lock:
                        self.request.sendall(reply)
                else:
                    self.request.sendall(reply)
        except OSError:
            pass
        clients.discard(self)


class Counter(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        _, number, count = data.decode().split()
        if count in sums and MISTAKE != "counts-twice":
            reply = sums[count]
        else:
            reply = sums[count] = max(sums.values(), default=0) + int(number)
        sock.sendto(b"%d" % reply, self.client_address)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if MISTAKE == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if FILE.exists():
    notes += FILE.read_text().splitlines()
counter = socketserver.UDPServer(("127.0.0.1", PORT), Counter)
threading.Thread(target=counter.serve_forever, daemon=True).start()
Server(("127.0.0.1", PORT), Handler).serve_forever()
