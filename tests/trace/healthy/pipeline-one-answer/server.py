import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    buffer = b""
    while data := conn.recv(4096):
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        conn.sendall(b"".join(b"+" + line + b"\r\n" for line in lines))
    conn.close()
