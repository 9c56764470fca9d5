import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = []
while True:
    clients.append(listener.accept())
    print("clients:", len(clients))
