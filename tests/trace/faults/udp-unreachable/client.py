import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.send(b"hi")
try:
    print(s.recv(100))
except ConnectionRefusedError as error:
    print(error)
