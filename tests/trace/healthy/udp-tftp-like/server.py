import socket, sys, threading

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))

def transfer(peer):
    t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t.settimeout(2)
    for block in range(1, 4):
        t.sendto(b"DATA%d" % block, peer)
        while t.recvfrom(600) != (b"ACK%d" % block, peer):
            pass
    t.close()

while True:
    request, peer = s.recvfrom(600)
    threading.Thread(target=transfer, args=(peer,)).start()
