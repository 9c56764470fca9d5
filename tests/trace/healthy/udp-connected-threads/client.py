import socket, sys, threading
port = int(sys.argv[1])
def one(k):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("127.0.0.1", port))
    s.settimeout(1)
    for i in range(3):
        s.send(b"%d-%d" % (k, i))
        assert s.recv(2048) == b"ok %d-%d" % (k, i)
    s.close()
ts = [threading.Thread(target=one, args=(k,)) for k in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
print("ok")
