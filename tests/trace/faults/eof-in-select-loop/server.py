import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
sockets = [listener]
while True:
    for s in select.select(sockets, [], [])[0]:
        if s is listener:
            sockets.append(s.accept()[0])
        else:
            data = s.recv(1000)
            if data:
                s.sendall(data.upper())
