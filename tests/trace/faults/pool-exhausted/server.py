import sys
import queue
import socket
from concurrent.futures import ThreadPoolExecutor

subscribers = []


def serve(conn):
    with conn, conn.makefile("r") as lines:
        verb, _, rest = lines.readline().strip().partition(" ")
        if verb == "SUBSCRIBE":
            inbox = queue.Queue()
            subscribers.append(inbox)
            conn.sendall(b"SUBSCRIBED\n")
            while True:
                item = inbox.get()
                conn.sendall(("NEWS " + item + "\n").encode())
                if item == "end":
                    subscribers.remove(inbox)
                    break
        elif verb == "PUBLISH":
            for inbox in list(subscribers):
                inbox.put(rest)
            conn.sendall(("SENT %d\n" % len(subscribers)).encode())


with ThreadPoolExecutor(max_workers=3) as pool:
    srv = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        conn, peer = srv.accept()
        pool.submit(serve, conn)
