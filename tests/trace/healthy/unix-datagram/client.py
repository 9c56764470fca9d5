import socket

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("client.sock")
for word in (b"one", b"two"):
    s.sendto(word, "server.sock")
    print(s.recvfrom(1000))
s.close()
