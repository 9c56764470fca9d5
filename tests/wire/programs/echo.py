"""Send back every datagram to a port, with fragmentation allowed."""

import socket
import sys

IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # linux/in.h: without Don't Fragment

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    sock.bind(("0.0.0.0", int(sys.argv[1])))
    while True:
        data, peer = sock.recvfrom(65535)
        sock.sendto(data, peer)
