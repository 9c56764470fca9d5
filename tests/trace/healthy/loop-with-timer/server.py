"""Readers in a pool: the selector reports a connection until one of them has read it. And a game's clock."""

import queue
import selectors
import socket
import sys
import threading
import time

jobs = queue.Queue()


def work():
    while (connection := jobs.get()) is not None:
        time.sleep(0.01)
        try:
            data = connection.recv(1000)
        except BlockingIOError:
            continue  # another one was faster
        if data:
            connection.sendall(data)


pool = [threading.Thread(target=work) for _ in range(2)]
for thread in pool:
    thread.start()
selector = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
connection.setblocking(False)
selector.register(connection, selectors.EVENT_READ)
for _ in range(80):
    for _ in selector.select(0):
        jobs.put(connection)
    time.sleep(0.01)
jobs.put(None), jobs.put(None)
for thread in pool:
    thread.join()
connection.close()
