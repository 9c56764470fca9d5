"""Keep two connections open as a pool does, and connect a third and a fourth time."""
import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))


def ask(s, text):
    s.sendall(text)
    return s.recv(100)


pool = [socket.create_connection(address) for _ in range(2)]
for each in pool:
    ask(each, b"warm up\n")
late = socket.create_connection(address)
late.sendall(b"who is there?\n")
late.settimeout(1.5)
try:
    print(late.recv(100))
except TimeoutError:
    print("no answer, less pool")
for each in pool:
    each.close()
late.settimeout(None)
print(late.recv(100))
late.close()
with socket.create_connection(address) as last:
    print(ask(last, b"bye\n"))
