import socket
import sys
import threading

address = ("127.0.0.1", int(sys.argv[1]))
second_answered = threading.Event()


def second():
    with socket.create_connection(address) as s:
        s.sendall(b"quick question\n")
        print("second:", s.recv(1024).decode(), end="")
        second_answered.set()


with socket.create_connection(address) as first:
    first.sendall(b"hello\n")
    print("first:", first.recv(1024).decode(), end="")
    thread = threading.Thread(target=second)
    thread.start()
    second_answered.wait(1.5)  # a user who thinks
    first.sendall(b"bye\n")
    print("first:", first.recv(1024).decode(), end="")
thread.join()
