import socket
import ssl
import sys

context = ssl.create_default_context()
with socket.create_connection(("localhost", int(sys.argv[1]))) as s:
    with context.wrap_socket(s, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        print(tls.recv(1000))
