import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
with select.epoll() as epoll:
    epoll.register(connection, select.EPOLLIN | select.EPOLLONESHOT)
    while True:
        for _ in epoll.poll():
            connection.sendall(connection.recv(1000).upper())
