import socket, sys, threading


def handle(conn):
    conn.settimeout(0.4)
    with conn:
        try:
            while data := conn.recv(1000):
                conn.sendall(b"answer to " + data)
        except TimeoutError:
            pass


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=handle, args=(conn,)).start()
