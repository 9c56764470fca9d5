import socket
import sys
import threading
import time

accounts = {"a": 10, "b": 20}
locks = {name: threading.Lock() for name in accounts}


def move(source, target, amount):
    with locks[source]:
        time.sleep(0.3)  # looks up the limits
        with locks[target]:
            accounts[source] -= amount
            accounts[target] += amount


def serve(connection):
    with connection, connection.makefile("r") as lines:
        for line in lines:
            source, target, amount = line.split()
            move(source, target, int(amount))
            connection.sendall(b"moved\n")


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
