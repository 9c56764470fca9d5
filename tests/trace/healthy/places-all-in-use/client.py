"""More workers than the server has places: the others wait for their turn."""

import socket
import sys
import threading
import time


def work(number):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        for value in range(number, number + 3):
            s.sendall(b"%d\n" % value)
            print(value, s.recv(100).decode(), end="")
            time.sleep(0.2)


workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for each in workers:
    each.start()
for each in workers:
    each.join()
