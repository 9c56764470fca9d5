import socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    try:
        with context.wrap_socket(conn, server_side=True) as tls:
            request = tls.recv(4096)
            tls.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
    except ssl.SSLError as error:
        print("handshake:", error.reason)
        conn.close()
