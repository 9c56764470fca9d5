import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.settimeout(0.3)
idle = 0
while True:
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        idle += 1
        continue
    with connection:
        connection.sendall(b"idle %d times\n" % idle)
