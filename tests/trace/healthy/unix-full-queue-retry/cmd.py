import socket, threading, time

listener = socket.socket(socket.AF_UNIX)
listener.bind("q.sock")
listener.listen(0)


def serve():
    time.sleep(0.5)
    for _ in range(3):
        listener.accept()[0].close()


thread = threading.Thread(target=serve)
thread.start()
sockets = []
while len(sockets) < 3:
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try:
        s.connect("q.sock")
        sockets.append(s)
    except BlockingIOError:
        s.close()
        time.sleep(0.1)
thread.join()
for s in sockets:
    s.close()
