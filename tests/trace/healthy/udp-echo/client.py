import socket, sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("127.0.0.1", int(sys.argv[1])))
    for size in (1, 1000, 9000):
        s.send(bytes(size))
        assert len(s.recv(65535)) == size
