import socket, sys, threading


def serve(conn):
    while data := conn.recv(100):
        conn.sendall(data)
    conn.close()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
