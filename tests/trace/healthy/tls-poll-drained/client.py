import socket
import ssl
import sys

context = ssl.create_default_context(cafile="cert.pem")
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as raw:
    with context.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall(b"y" * 5000 + b"\n")
        print(s.recv(100))
        s.sendall(b"z" * 3000 + b"\n")
        print(s.recv(100))
