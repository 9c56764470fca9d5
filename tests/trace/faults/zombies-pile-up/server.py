import os
import socket
import sys
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for _ in range(3):
    connection, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        connection.sendall(b"%d\n" % os.getpid())
        connection.close()
        os._exit(0)
    connection.close()
time.sleep(1)
