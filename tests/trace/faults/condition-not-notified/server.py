import collections
import socket
import sys
import threading

jobs = collections.deque()
ready = threading.Condition()


def work():
    while True:
        with ready:
            while not jobs:
                ready.wait()
            connection = jobs.popleft()
        with connection:
            connection.sendall(connection.recv(1000).swapcase())


for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with ready:
        jobs.append(connection)
