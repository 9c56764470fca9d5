import socket, ssl, sys, threading

def serve(connection):
    with context.wrap_socket(connection, server_side=True) as tls:
        request = tls.recv(4096)
        tls.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 50_000)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
