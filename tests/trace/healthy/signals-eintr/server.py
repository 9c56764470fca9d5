import signal, socket, sys

signal.signal(signal.SIGALRM, lambda *_: print("tick"))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
while data := conn.recv(100):
    conn.sendall(data)
conn.close()
signal.setitimer(signal.ITIMER_REAL, 0)
