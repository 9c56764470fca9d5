import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"stop\n")
print(s.recv(100))
print("waiting for the server to finish", s.recv(100))
