import socket, sys

for text in (b"one", b"two"):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(text)
    print(s.recv(100))
    s.close()
