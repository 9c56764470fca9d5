import socket, struct, sys

store = {}


def take(connection, size):
    data = connection.recv(size)
    if not data:
        raise EOFError
    return data


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
try:
    while True:
        key_size, value_size = struct.unpack("!BB", take(connection, 2))
        key = take(connection, key_size)
        store[key] = take(connection, value_size)
        connection.sendall(b"ok")
except EOFError:
    connection.close()
