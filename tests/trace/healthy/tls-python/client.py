import socket, ssl, sys

context = ssl.create_default_context(cafile="cert.pem")
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as raw:
    with context.wrap_socket(raw, server_hostname="localhost") as tls:
        for word in (b"one", b"two"):
            tls.sendall(word)
            print(tls.recv(100))
        tls.unwrap()
