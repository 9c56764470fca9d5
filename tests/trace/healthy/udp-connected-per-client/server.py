import socket, sys, threading

port = int(sys.argv[1])

def bound():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    return s

def serve(s):
    s.settimeout(3)
    try:
        while data := s.recv(1000):
            s.send(b"again " + data)
    except OSError:
        pass

main = bound()
while True:
    data, peer = main.recvfrom(1000)
    s = bound()
    s.connect(peer)
    s.send(b"hello " + data)
    threading.Thread(target=serve, args=(s,), daemon=True).start()
