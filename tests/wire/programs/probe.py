"""Send datagrams to an echo server, once each; print which were not answered.

Arguments: host, port, count, and the seconds to wait after the last one.
"""

import select
import socket
import sys
import time

host, port, count, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
missing = set(range(count))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((host, port))
    for number in range(count):
        sock.send(b"%d" % number)
    until = time.monotonic() + patience
    while missing and select.select([sock], [], [], max(0.0, until - time.monotonic()))[0]:
        missing.discard(int(sock.recv(2000)))
print(*sorted(missing))
