import socket
import ssl
import sys
import time

time.sleep(0.5)
context = ssl.create_default_context(cafile="cert.pem")
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    with context.wrap_socket(s, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        print(tls.recv(100))
