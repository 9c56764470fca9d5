import sys
from pathlib import Path
from socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from threading import Thread


def handle(connection):
    try:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(1024)
            if not piece:
                return
            request += piece
        name = request.split()[1][1:].decode()
        try:
            page = (Path(sys.argv[2]) / name).read_bytes()
        except OSError:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n<h1>404 Not Found</h1>\r\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + page)
    except OSError:
        pass
    finally:
        connection.close()


server = socket(AF_INET, SOCK_STREAM)
server.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen(128)
while True:
    connection, _ = server.accept()
    Thread(target=handle, args=(connection,), daemon=True).start()
