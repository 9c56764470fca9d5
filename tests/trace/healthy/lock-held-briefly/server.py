import socket
import sys
import threading
import time

lock = threading.Lock()
total = 0


def serve(connection):
    global total
    with connection, connection.makefile("r") as lines:
        for line in lines:
            with lock:
                time.sleep(1.2)  # a slow disk
                total += int(line)
                connection.sendall(f"{total}\n".encode())


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
