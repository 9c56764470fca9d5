import socket
import ssl
import sys

context = ssl.create_default_context()
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    with context.wrap_socket(connection, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        print(tls.recv(1000))
