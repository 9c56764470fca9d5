import socket
import sys

clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(10)]
for each in clients:
    try:
        print(each.recv(100))
    except OSError as error:
        print(error)
    each.close()
