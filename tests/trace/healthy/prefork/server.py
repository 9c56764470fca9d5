import os, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
workers = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        while True:
            conn, _ = listener.accept()
            with conn:
                while data := conn.recv(100):
                    conn.sendall(data)
    workers.append(pid)
for pid in workers:
    os.waitpid(pid, 0)
