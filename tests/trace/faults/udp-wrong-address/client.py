import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b"hello", (socket.gethostbyname(socket.gethostname()), int(sys.argv[1])))
try:
    print(s.recv(100))
except TimeoutError:
    print("no answer")
