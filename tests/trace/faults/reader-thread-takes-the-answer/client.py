import socket, sys, threading, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))


def watch():
    while news := s.recv(1000):
        if news.startswith(b"news:"):
            print(news)


threading.Thread(target=watch, daemon=True).start()
time.sleep(0.2)
for order in (b"start\n", b"stop\n"):
    s.sendall(order)
    time.sleep(0.1)  # draws the progress bar
    print(s.recv(1000))
