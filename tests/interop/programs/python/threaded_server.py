"""A thread for each client, which capitalises what comes until he has finished. Prints its port."""

import socket
import threading


def talk(connection: socket.socket, name: str) -> None:
    while True:
        data = connection.recv(1024)
        if not data:
            break
        print(f"{name}: {data.decode().strip()}", flush=True)
        connection.sendall(data.upper())
    connection.close()
    print(f"{name} has gone", flush=True)


server_socket = socket.socket()
server_socket.bind(("", 0))
server_socket.listen(5)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection, address = server_socket.accept()
    # Habit: nobody keeps the thread, and nobody will join it.
    threading.Thread(target=talk, args=(connection, f"{address[0]}#{address[1]}")).start()
