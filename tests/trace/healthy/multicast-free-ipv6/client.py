import socket, sys

for host in ("127.0.0.1", "::1"):
    with socket.create_connection((host, int(sys.argv[1]))) as s:
        print(s.makefile().read())
