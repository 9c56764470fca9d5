import socket
import sys

port = int(sys.argv[1])
for word in [b"one", b"two"]:
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(word)
    print(s.recv(100))
    s.close()
