import selectors
import socket
import sys

selector = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector.register(listener, selectors.EVENT_READ)
unsent = {}
while True:
    for key, events in selector.select():
        s = key.fileobj
        if s is listener:
            connection, _ = s.accept()
            connection.setblocking(False)
            unsent[connection] = b""
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            continue
        if events & selectors.EVENT_READ:
            data = s.recv(1000)
            if not data:
                selector.unregister(s)
                s.close()
                del unsent[s]
                continue
            unsent[s] += data
        if events & selectors.EVENT_WRITE and unsent[s]:
            unsent[s] = unsent[s][s.send(unsent[s]) :]
