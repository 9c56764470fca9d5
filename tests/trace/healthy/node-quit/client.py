import socket, sys

for event in ("start", "stop"):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(event.encode() + b"\n")
        while s.recv(100):
            pass
