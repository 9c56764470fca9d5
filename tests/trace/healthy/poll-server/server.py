import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
poller = select.poll()
poller.register(listener, select.POLLIN)
connections = {}
while True:
    for fd, events in poller.poll(5000):
        if fd == listener.fileno():
            conn, _ = listener.accept()
            connections[conn.fileno()] = conn
            poller.register(conn, select.POLLIN)
        elif events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            conn = connections[fd]
            data = conn.recv(2048)
            if data:
                conn.sendall(data)
            else:
                poller.unregister(conn)
                connections.pop(fd).close()
