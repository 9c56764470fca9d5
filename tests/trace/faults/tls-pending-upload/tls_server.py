import select
import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    raw, _ = listener.accept()
    with context.wrap_socket(raw, server_side=True) as connection:
        data = b""
        while not data.endswith(b"\n"):
            select.select([connection], [], [])
            piece = connection.recv(1024)
            if not piece:
                break
            data += piece
        connection.sendall(b"got %d bytes\n" % len(data))
