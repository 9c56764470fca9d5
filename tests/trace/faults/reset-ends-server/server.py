import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = []
while True:
    readable, _, _ = select.select([listener, *clients], [], [])
    for each in readable:
        if each is listener:
            clients.append(listener.accept()[0])
        elif data := each.recv(1024):
            each.sendall(data)
        else:
            clients.remove(each)
            each.close()
