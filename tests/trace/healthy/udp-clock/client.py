import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server = ("127.0.0.1", int(sys.argv[1]))
s.sendto(b"subscribe", server)
for _ in range(5):
    print(s.recvfrom(100))
s.sendto(b"unsubscribe", server)
s.close()
