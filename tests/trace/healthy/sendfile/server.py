import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with conn, open(sys.executable, "rb") as file:
        conn.recv(100)
        conn.sendfile(file, 0, 3_000_000)
