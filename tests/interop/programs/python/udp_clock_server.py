"""Tells whoever sends anything what time it is. Prints its port."""

import socket
import time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 0))
print("port", s.getsockname()[1], flush=True)
while True:
    data, client = s.recvfrom(128)
    s.sendto(time.ctime().encode(), client)
