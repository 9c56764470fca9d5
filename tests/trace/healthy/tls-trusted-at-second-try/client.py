import socket
import ssl
import sys


def ask(context):
    with socket.create_connection(("localhost", int(sys.argv[1]))) as s:
        with context.wrap_socket(s, server_hostname="localhost") as tls:
            tls.sendall(b"hello")
            return tls.recv(1000)


try:
    print(ask(ssl.create_default_context()))
except ssl.SSLCertVerificationError:
    print(ask(ssl.create_default_context(cafile="cert.pem")))
