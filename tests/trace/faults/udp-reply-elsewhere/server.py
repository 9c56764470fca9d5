import socket, sys

CLIENT_PORT = int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, (host, port) = s.recvfrom(100)
    s.sendto(b"ack " + data, (host, CLIENT_PORT))
