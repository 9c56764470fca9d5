import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.settimeout(0.5)
for attempt in range(2):
    s.sendto(b"M-SEARCH", ("255.255.255.255", int(sys.argv[1])))
    try:
        print(s.recvfrom(1500))
    except TimeoutError:
        print("no device")
