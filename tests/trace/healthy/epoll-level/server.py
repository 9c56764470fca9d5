import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
connections, output = {}, {}
while True:
    for fd, events in epoll.poll():
        if fd == listener.fileno():
            conn, _ = listener.accept()
            conn.setblocking(False)
            connections[conn.fileno()], output[conn.fileno()] = conn, b""
            epoll.register(conn, select.EPOLLIN)
            continue
        conn = connections[fd]
        if events & select.EPOLLIN:
            data = conn.recv(5)  # the rest is reported again
            if not data:
                epoll.unregister(fd)
                conn.close()
                continue
            output[fd] += data.swapcase()
        if output[fd]:
            output[fd] = output[fd][conn.send(output[fd]) :]
        epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if output[fd] else 0))
