"""Many clients at once, by select: capitalises what comes from each. Prints its port."""

import select
import socket

server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
inputs = [server_socket]
while True:
    readable, writable, exceptional = select.select(inputs, [], [])
    for s in readable:
        if s is server_socket:
            connection, address = s.accept()
            inputs.append(connection)
            continue
        data = s.recv(1024)
        if data:
            # Habit: a client that doesn't read would stop the server, and all its clients, in sendall.
            s.sendall(data.upper())
        else:
            inputs.remove(s)
            s.close()
