"""Prints what each client says and answers it, until the client says "quit". Prints its port."""

import socket

server_socket = socket.socket()
server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server_socket.bind(("", 0))
server_socket.listen(1)
print("port", server_socket.getsockname()[1], flush=True)
while True:
    connection, addr = server_socket.accept()
    while True:
        # Habit: what two sends wrote may come in one recv, and is then one message.
        message = connection.recv(1024)
        if not message or message.strip() == b"quit":
            break
        print(f"{addr[0]}#{addr[1]}: {message.decode().strip()}", flush=True)
        connection.send(b"You said: " + message)
    connection.close()
