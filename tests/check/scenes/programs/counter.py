"""A counter of readings: `counter.py PORT [MISTAKE]`. Sensors send numbers over UDP, viewers ask over TCP.

A viewer's request ends with `?`, without framing: `SUM?` is answered by `sum=N;`, and `END?` closes.
"""

from __future__ import annotations

import selectors
import socket
import sys

MISTAKE = sys.argv[2] if len(sys.argv) > 2 else ""
PORT = int(sys.argv[1])


def main() -> None:
    total = 0
    listener = socket.create_server(("127.0.0.1", PORT))
    sensors = socket.socket(type=socket.SOCK_DGRAM)
    sensors.bind(("127.0.0.1", 0 if MISTAKE == "other-port" else PORT))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    if MISTAKE != "no-udp":
        selector.register(sensors, selectors.EVENT_READ)
    else:
        sensors.close()
    requests: dict[socket.socket, bytes] = {}
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                conn, _ = sock.accept()
                requests[conn] = b""
                selector.register(conn, selectors.EVENT_READ)
            elif sock is sensors:
                reading, address = sensors.recvfrom(100)
                total += int(reading)
                sensors.sendto(b"" if MISTAKE == "empty" else b"OK", address)
            else:
                data = sock.recv(100)
                requests[sock] += data
                if requests[sock].endswith(b"SUM?"):
                    requests[sock] = b""
                    sock.sendall(b"sum=%d" % total)
                    sock.sendall(b"!" if MISTAKE == "wrong-end" else b";")
                elif not data or requests[sock].endswith(b"END?"):
                    selector.unregister(sock)
                    sock.close()


main()
