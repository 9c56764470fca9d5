import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.settimeout(1)
s.sendto(b"discover", ("255.255.255.255", int(sys.argv[1])))
try:
    print(s.recvfrom(100))
except TimeoutError:
    print("nobody")
