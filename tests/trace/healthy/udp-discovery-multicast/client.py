import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.7)
s.sendto(b"M-SEARCH", ("239.255.7.7", int(sys.argv[1])))
try:
    while True:
        print(s.recvfrom(1500))
except TimeoutError:
    print("that is all")
