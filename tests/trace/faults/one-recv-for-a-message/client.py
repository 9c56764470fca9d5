import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET the whole list\n")
try:
    print(s.recv(100))
except ConnectionResetError as error:
    print(error)
s.close()
