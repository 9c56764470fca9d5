import socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"220 mail\r\n")
    while line := connection.recv(1000):
        if line.startswith(b"STARTTLS"):
            connection.sendall(b"220 go\r\n")
            connection = context.wrap_socket(connection, server_side=True)
        elif line.startswith(b"QUIT"):
            connection.sendall(b"221 bye\r\n")
            break
        else:
            connection.sendall(b"250-mail\r\n250 STARTTLS\r\n")
    connection.close()
