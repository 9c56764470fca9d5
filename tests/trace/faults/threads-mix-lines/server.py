import socket
import sys
import threading
import time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()


def report(name, pause):
    for number in range(5):
        connection.sendall(f"{name} ".encode())
        time.sleep(pause)
        connection.sendall(f"{number}\n".encode())


threads = [threading.Thread(target=report, args=each) for each in (("disk", 0.03), ("cpu", 0.02))]
for each in threads:
    each.start()
for each in threads:
    each.join()
connection.close()
