import sys
import socket
import threading


def ask(line):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall((line + "\n").encode())
    return s.makefile("r")


def subscriber(n, ready):
    f = ask("SUBSCRIBE sport")
    print(n, f.readline().strip(), flush=True)
    ready.release()
    for line in f:
        print(n, line.strip(), flush=True)


ready = threading.Semaphore(0)
threads = [threading.Thread(target=subscriber, args=(n, ready)) for n in range(3)]
for t in threads:
    t.start()
for t in threads:
    ready.acquire()
for item in ("2:1 in the last minute", "end"):
    print("publisher:", ask("PUBLISH " + item).readline().strip(), flush=True)
for t in threads:
    t.join()
