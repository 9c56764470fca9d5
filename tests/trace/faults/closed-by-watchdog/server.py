import os
import socket
import sys
import threading

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
first, _ = listener.accept()
number = first.detach()


def echo():
    while data := os.read(number, 100):
        os.write(number, b"first: " + data)


threading.Thread(target=echo, daemon=True).start()
second_ready = threading.Timer(0.4, os.close, [number])
second_ready.start()
second_ready.join()
second, _ = listener.accept()
while data := second.recv(100):
    second.sendall(b"second: " + data)
