import socket, sys, threading


def handle(conn):
    with conn:
        name = conn.recv(100)
        try:
            for _ in range(2000):
                conn.sendall(name[:1] * 32768)
        except (BrokenPipeError, ConnectionResetError):
            print("the client has enough")


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=handle, args=(conn,), daemon=True).start()
