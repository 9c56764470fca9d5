import select, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = [listener]
while True:
    readable, _, _ = select.select(clients, [], [])
    for each in readable:
        if each is listener:
            clients.append(listener.accept()[0])
            continue
        data = each.recv(4096)
        if not data:
            clients.remove(each)
        elif data == b"dump":
            each.sendall(bytes(50_000_000))
        else:
            each.sendall(b"pong")
