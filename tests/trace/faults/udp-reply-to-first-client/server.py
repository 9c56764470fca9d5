import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
client = None
while True:
    data, address = s.recvfrom(100)
    if client is None:
        client = address
    s.sendto(b"hello " + data, client)
