import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
parts = []
while True:
    part = conn.recv(1024)
    if not part:
        break
    parts.append(part)
conn.sendall(b"%d words\n" % len(b"".join(parts).split()))
conn.close()
