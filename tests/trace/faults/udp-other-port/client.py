import socket, sys

SERVER = ("127.0.0.1", int(sys.argv[2]))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
for attempt in range(3):
    s.sendto(b"time?", SERVER)
    try:
        print(s.recvfrom(100))
        break
    except TimeoutError:
        print("again")
