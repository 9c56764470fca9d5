"""Send datagrams to an echo server, with fragmentation allowed; print whether they come back unchanged.

Arguments: host, port, and their sizes in bytes.
"""

import random
import socket
import sys

IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # linux/in.h: without Don't Fragment

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    sock.settimeout(10)
    for size in map(int, sys.argv[3:]):
        data = random.Random(size).randbytes(size)
        sock.sendto(data, (sys.argv[1], int(sys.argv[2])))
        print(size, sock.recv(65535) == data)
