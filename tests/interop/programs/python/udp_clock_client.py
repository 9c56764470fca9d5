"""Asks a clock for the time, with an empty datagram: udp_clock_client.py ADDRESS PORT."""

import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"", (sys.argv[1], int(sys.argv[2])))
data, server = s.recvfrom(128)
print(data.decode())
