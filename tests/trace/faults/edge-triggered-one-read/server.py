import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
clients, received = {}, {}
while True:
    for fd, _ in epoll.poll():
        if fd == listener.fileno():
            conn, _ = listener.accept()
            conn.setblocking(False)
            clients[conn.fileno()] = conn
            received[conn.fileno()] = b""
            epoll.register(conn, select.EPOLLIN | select.EPOLLET)
            continue
        received[fd] += clients[fd].recv(512)
        if len(received[fd]) >= 5000:
            clients[fd].sendall(b"complete")
