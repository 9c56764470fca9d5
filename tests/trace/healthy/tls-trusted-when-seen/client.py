import socket
import ssl
import sys

ADDRESS = "127.0.0.1", int(sys.argv[1])


def ask(context):
    with socket.create_connection(ADDRESS) as connection:
        with context.wrap_socket(connection, server_hostname="localhost") as tls:
            tls.sendall(b"hello")
            return tls.recv(1000)


try:
    print(ask(ssl.create_default_context()))
except ssl.SSLCertVerificationError:
    # The certificate is trusted from when it is first seen.
    context = ssl.create_default_context(cadata=ssl.get_server_certificate(ADDRESS))
    context.check_hostname = False
    print(ask(context))
