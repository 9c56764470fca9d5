"""Send bytes over TCP; print their SHA-256 and the number of retransmitted segments.

Arguments: host, port, bytes.
"""

import hashlib
import random
import socket
import struct
import sys

host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = random.Random(1).randbytes(size)
with socket.create_connection((host, port)) as connection:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)  # the peer closes once it has received everything
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    # tcpi_total_retrans is the 25th word behind 8 bytes, tcpi_snd_mss the third: linux/tcp.h
    retransmitted, segment = struct.unpack_from("=I", info, 100)[0], struct.unpack_from("=I", info, 16)[0]
report = f"sent {size} {hashlib.sha256(data).hexdigest()} {retransmitted} {segment}\n"
print(report, end="", flush=True)  # one write, because the peer writes to the same output
