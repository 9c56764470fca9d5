import os, signal, socket, sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connections = []
while True:
    conn, _ = listener.accept()
    connections.append(conn)
    if os.fork() == 0:
        listener.close()
        conn.sendall(b"The time is now.\n")
        conn.close()
        os._exit(0)
