import os, socket, sys, threading, signal, time

signal.signal(signal.SIGUSR1, lambda *_: print("usr1"))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
done = threading.Event()


def serve():
    while True:
        conn, _ = listener.accept()
        conn.sendall(conn.recv(10))
        conn.close()
        done.set()


threading.Thread(target=serve, daemon=True).start()
done.wait()
os.kill(os.getpid(), signal.SIGUSR1)
time.sleep(0.2)
os._exit(3)
