import os, socket, time

NAME = f"\0editor-{os.getpid()}"


def start(document):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.bind(NAME)
        s.listen()
    except OSError:
        s.close()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(NAME)
            s.sendall(document)
        return
    conn, _ = s.accept()
    print("open", conn.recv(100), conn.recv(100))
    conn.close()


if os.fork() == 0:
    time.sleep(0.4)
    start(b"b.txt")
    os._exit(0)
start(b"a.txt")
os.wait()
