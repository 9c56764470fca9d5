import socket
import ssl
import sys
import threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))


def serve(plain):
    plain.settimeout(5)
    try:
        with context.wrap_socket(plain, server_side=True) as conn:
            while data := conn.recv(1024):
                conn.sendall(data)
    except OSError as e:
        print(e)


while True:
    conn, addr = listener.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
