import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
for size in (1, 3000, 50_000, 0, 5):
    s.sendto(bytes(size), ("127.0.0.1", int(sys.argv[1])))
    assert len(s.recv(65535)) == size
