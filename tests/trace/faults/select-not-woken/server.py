import sys
import queue, select, socket, threading
jobs, outbox = queue.Queue(), {}
def worker():
    while True:
        s, d = jobs.get()
        outbox.setdefault(s, []).append(d[::-1])
threading.Thread(target=worker, daemon=True).start()
w = socket.create_server(("127.0.0.1", int(sys.argv[1]))); w.setblocking(False)
conns = [w]
while True:
    r, wr, _ = select.select(conns, [s for s in outbox if outbox[s]], [])
    for s in r:
        if s is w: conns.append(s.accept()[0]); continue
        d = s.recv(1000)
        if not d: conns.remove(s); outbox.pop(s, None); s.close(); continue
        jobs.put((s, d))
    for s in wr:
        if s in outbox and outbox[s]: s.sendall(outbox[s].pop(0))
