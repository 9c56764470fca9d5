import os
import socket
import sys
import threading

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
accepted, served = threading.Event(), threading.Event()


def serve_first(fd):
    print(os.read(fd, 100))
    os.close(fd)
    served.set()
    accepted.wait()  # logs, and so on
    os.close(fd)  # once more, to be sure


def serve_second(fd):
    os.write(fd, b"name?\n")
    name = os.read(fd, 100)
    accepted.set()
    first.join()
    try:
        os.write(fd, b"hello " + name)
    except OSError as error:
        print(error)


first = threading.Thread(target=serve_first, args=(listener.accept()[0].detach(),))
first.start()
served.wait()
second = threading.Thread(target=serve_second, args=(listener.accept()[0].detach(),))
second.start()
second.join()
