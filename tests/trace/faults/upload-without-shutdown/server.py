import hashlib, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    digest = hashlib.sha256()
    while chunk := conn.recv(4096):
        digest.update(chunk)
    conn.sendall(digest.hexdigest().encode())
    conn.close()
