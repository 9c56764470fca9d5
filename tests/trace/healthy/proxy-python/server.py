import socket, sys, threading

front, back = int(sys.argv[1]), int(sys.argv[2])


def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def serve(conn):
    upstream = socket.create_connection(("127.0.0.1", back))
    thread = threading.Thread(target=pump, args=(upstream, conn))
    thread.start()
    pump(conn, upstream)
    thread.join()
    upstream.close()
    conn.close()


listener = socket.create_server(("127.0.0.1", front))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn,)).start()
