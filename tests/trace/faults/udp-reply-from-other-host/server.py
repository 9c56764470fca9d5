import sys
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", int(sys.argv[1])))
table = {"www": "10.0.0.1", "mail": "10.0.0.2"}
while True:
    d, a = s.recvfrom(512)
    ident, name = d.decode().split()
    s.sendto(f"{ident} {table.get(name, '-')}".encode(), a)
