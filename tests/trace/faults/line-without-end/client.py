import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall("Ada".encode())
    print(s.recv(1024).decode())
