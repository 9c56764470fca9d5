import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("server.sock")
while True:
    data, peer = s.recvfrom(1000)
    try:
        s.sendto(data.upper(), peer)
    except (OSError, TypeError) as error:
        print("can't answer:", error)
