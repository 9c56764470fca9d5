import select
import socket

listener = socket.create_server(("127.0.0.1", 12000))
watched, served = [listener], 0
while served < 2:
    ready, _, _ = select.select(watched, [], [])
    for each in ready:
        if each is listener:
            connection, _ = listener.accept()
            watched.append(connection)
        elif data := each.recv(100):
            each.sendall(data.upper())
        else:
            watched.remove(each)
            each.close()
            served += 1
