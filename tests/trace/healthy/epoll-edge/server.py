import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN | select.EPOLLET)
connections = {}
while True:
    for fd, _ in epoll.poll():
        if fd == listener.fileno():
            while True:
                try:
                    conn, _ = listener.accept()
                except BlockingIOError:
                    break
                conn.setblocking(False)
                connections[conn.fileno()] = conn
                epoll.register(conn, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            continue
        conn = connections[fd]
        while True:
            try:
                data = conn.recv(10)
            except BlockingIOError:
                break
            if not data:
                connections.pop(fd).close()
                break
            conn.send(data)
