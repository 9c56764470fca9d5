import queue
import select
import socket
import sys
import threading
import time

jobs, answers = queue.Queue(), queue.Queue()
wake, woken = socket.socketpair()


def worker():
    while True:
        connection, data = jobs.get()
        time.sleep(1.2)  # works on it
        answers.put((connection, data[::-1]))
        wake.send(b"x")


threading.Thread(target=worker, daemon=True).start()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
watched = [listener, woken]
while True:
    for each in select.select(watched, [], [])[0]:
        if each is listener:
            watched.append(listener.accept()[0])
        elif each is woken:
            woken.recv(1)
            connection, answer = answers.get()
            connection.sendall(answer)
        elif data := each.recv(1000):
            jobs.put((each, data))
        else:
            watched.remove(each)
            each.close()
