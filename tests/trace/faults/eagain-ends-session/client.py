import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.setblocking(False)
s.sendall(b"how many?")
try:
    print(s.recv(100))
except OSError:
    print("connection lost")
s.close()
