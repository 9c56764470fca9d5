import socket, sys

s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
s.settimeout(2)
try:
    s.accept()
except TimeoutError:
    pass
