import socket
import sys
import threading

SIZE = 64


def serve(connection):
    """Subscribers send one record of 64 bytes; the news come when there are some."""
    with connection:
        topic = connection.recv(SIZE)
        timer = threading.Timer(1.3, connection.sendall, [b"news of " + topic.strip()])
        timer.start()
        while connection.recv(SIZE):
            pass


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
