import socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    connection, _ = listener.accept()
    with context.wrap_socket(connection, server_side=True) as mail:
        mail.sendall(b"220 mail.example ready\r\n")
        print(mail.recv(100))
