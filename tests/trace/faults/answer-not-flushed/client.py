import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for word in ("level", "stone"):
    s.sendall(word.encode() + b"\n")
    print(s.recv(100))
