import socket, ssl, sys

context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
with context.wrap_socket(raw) as tls:
    tls.sendall(b"hello\n")
    print(tls.recv(1024))
