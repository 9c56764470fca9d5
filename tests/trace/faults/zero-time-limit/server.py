import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connections = []
while True:
    readable, _, _ = select.select([listener, *connections], [], [], 0)
    for s in readable:
        if s is listener:
            connections.append(s.accept()[0])
        elif data := s.recv(1000):
            s.sendall(data)
        else:
            connections.remove(s)
            s.close()
