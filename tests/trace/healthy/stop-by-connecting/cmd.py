import socket, threading, time

listener = socket.create_server(("127.0.0.1", 0))
stopping = threading.Event()


def serve():
    while True:
        conn, _ = listener.accept()
        if stopping.is_set():
            break
        conn.close()


thread = threading.Thread(target=serve)
thread.start()
time.sleep(0.2)
stopping.set()
s = socket.socket()
s.setblocking(False)
s.connect_ex(listener.getsockname())
thread.join()
s.close()
