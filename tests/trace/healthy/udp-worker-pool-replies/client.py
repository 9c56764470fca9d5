import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for word in (b"abc", b"def", b"ghi", b"jkl"):
    s.sendto(word, ("127.0.0.1", int(sys.argv[1])))
for _ in range(4):
    print(s.recv(100))
