import socket, sys

RECORD = 64


def read_record(conn):
    data = b""
    while len(data) < RECORD:
        data += conn.recv(RECORD - len(data))
    return data


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
print(read_record(conn))
conn.sendall(b"stored")
