import socket
import sys
import time


def ask(text):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(text)
        print(s.recv(100))


ask(b"first\n")
time.sleep(1.5)
ask(b"second\n")
