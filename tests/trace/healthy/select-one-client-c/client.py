import socket
import sys
import threading
import time


def talk(pause):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        for i in range(2):
            s.sendall(b"ping %d" % i)
            print(s.recv(100))
            time.sleep(pause)


threads = [threading.Thread(target=talk, args=(pause,)) for pause in (0.8, 0.0)]
for each in threads:
    each.start()
    time.sleep(0.1)
for each in threads:
    each.join()
