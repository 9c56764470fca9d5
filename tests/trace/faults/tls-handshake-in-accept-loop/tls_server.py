import socket
import ssl
import sys
import threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = context.wrap_socket(socket.create_server(("127.0.0.1", int(sys.argv[1]))), server_side=True)


def serve(conn):
    with conn:
        while data := conn.recv(1024):
            conn.sendall(data)


while True:
    try:
        conn, addr = listener.accept()
    except (ssl.SSLError, OSError) as e:
        print(e)
        continue
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
