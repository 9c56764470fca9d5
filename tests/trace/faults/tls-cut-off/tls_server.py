import os, socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    tls = context.wrap_socket(conn, server_side=True)
    name = tls.recv(4096)
    for number in range(5):
        tls.sendall(b"record %d\n" % number)
    tls.close()
