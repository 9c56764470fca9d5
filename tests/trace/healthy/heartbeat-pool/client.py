"""A pool of three connections with heartbeats; requests borrow one and put it back."""
import queue
import socket
import sys
import threading
import time
class Conn:
    def __init__(self):
        self.s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
        self.f = self.s.makefile("rwb")
        self.lock = threading.Lock()
    def ask(self, line):
        with self.lock:
            self.f.write(line + b"\n")
            self.f.flush()
            return self.f.readline()
    def close(self):
        self.ask(b"QUIT")
        self.f.close()
        self.s.close()
conns = [Conn() for _ in range(3)]
pool = queue.LifoQueue()
for c in conns:
    pool.put(c)
over = threading.Event()
def beat():
    while not over.wait(0.4):
        for c in conns:
            assert c.ask(b"PING") == b"PONG\n"
b = threading.Thread(target=beat)
b.start()
def work(i):
    c = pool.get()
    try:
        assert c.ask(b"job %d" % i) == b"= JOB %d\n" % i
    finally:
        pool.put(c)
for i in range(4):
    ts = [threading.Thread(target=work, args=(10 * i + j,)) for j in range(5)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    time.sleep(0.5)
over.set()
b.join()
for c in conns:
    c.close()
print("ok")
