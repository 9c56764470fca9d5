import select, socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
listeners = set()
while True:
    readable, _, _ = select.select([s], [], [], 0.1)
    if readable:
        data, peer = s.recvfrom(100)
        if data == b"subscribe":
            listeners.add(peer)
        else:
            listeners.discard(peer)
    for peer in listeners:
        s.sendto(b"%.1f" % time.time(), peer)
