import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.9", int(sys.argv[1])))
s.settimeout(1)
s.send(b"abc")
try:
    print(s.recv(100))
except OSError as error:
    print(error)
