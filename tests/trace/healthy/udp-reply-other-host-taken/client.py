import random
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
for name in ("www", "mail"):
    ident = str(random.randint(1, 9999))
    s.sendto(f"{ident} {name}".encode(), ("127.0.0.2", int(sys.argv[1])))
    while True:
        data, source = s.recvfrom(512)
        if data.decode().split()[0] == ident:
            break
    print(name, data, source)
