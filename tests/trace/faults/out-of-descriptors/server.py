import resource
import socket
import sys
import time

resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = []
for _ in range(14):
    try:
        clients.append(listener.accept()[0])
    except OSError as error:
        print(error)
        time.sleep(0.05)
for each in clients:
    each.sendall(b"hello")
    each.close()
