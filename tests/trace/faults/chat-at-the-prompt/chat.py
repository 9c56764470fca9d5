import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    s.sendall(input().encode())
    print(s.recv(100).decode())
