"""A process for each client, which capitalises what comes until he has finished. Prints its port."""

import os
import socket

server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection, address = server_socket.accept()
    # Habit: nobody waits for the children, so each stays a zombie.
    if os.fork() == 0:
        server_socket.close()
        while data := connection.recv(1024):
            connection.sendall(data.upper())
        connection.close()
        os._exit(0)
    connection.close()
