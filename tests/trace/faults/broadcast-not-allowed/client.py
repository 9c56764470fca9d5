import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
try:
    s.sendto(b"who is there?", ("255.255.255.255", int(sys.argv[1])))
    print(s.recvfrom(100))
except OSError as error:
    print("nobody:", error)
