import queue
import socket
import sys
import threading

news = queue.Queue()
subscribers = []


def publish():
    while text := news.get():
        for subscriber in subscribers:
            subscriber.sendall(text)


threading.Thread(target=publish, daemon=True).start()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    subscribers.append(listener.accept()[0])
