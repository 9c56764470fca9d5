import socket, sys, threading

stock = {"bolt": 40, "nut": 100}
clients = set()


def serve(connection):
    clients.add(connection)
    for line in connection.makefile():
        command, part, number = line.split()
        stock[part] += int(number) if command == "add" else -int(number)
        connection.sendall(f"{part} {stock[part]}\n".encode())
    clients.remove(connection)
    connection.close()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
