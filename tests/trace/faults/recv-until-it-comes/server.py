import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
connections = []
while True:
    try:
        connection, _ = listener.accept()
        connection.setblocking(False)
        connections.append(connection)
    except BlockingIOError:
        pass
    for connection in connections[:]:
        try:
            data = connection.recv(1000)
        except BlockingIOError:
            continue
        if data:
            connection.sendall(data)
        else:
            connections.remove(connection)
            connection.close()
