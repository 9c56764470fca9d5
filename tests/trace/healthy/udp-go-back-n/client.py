import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.25)
base = following = 0
while base < 30:
    while following < min(base + 5, 30):
        s.sendto(b"%04d" % following + b"payload " * 60, ("127.0.0.1", int(sys.argv[1])))
        following += 1
    try:
        base = max(base, int(s.recv(10)))
    except TimeoutError:
        following = base
s.close()
