import selectors
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
guests = []
while True:
    for key, _ in selector.select():
        connection, address = key.fileobj.accept()
        guests.append((connection, address))
