"""Send many datagrams in one call (udp(7), UDP_SEGMENT) to an echo server; print the size of each answer.

Arguments: host, port, bytes per datagram, bytes in total.
"""

import socket
import sys

UDP_SEGMENT = 103  # linux/udp.h

host, port, each, size = sys.argv[1], *map(int, sys.argv[2:])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, each)
    sock.settimeout(10)
    sock.sendto(bytes(size), (host, port))
    for _ in range(-(-size // each)):
        print(len(sock.recv(65535)))
