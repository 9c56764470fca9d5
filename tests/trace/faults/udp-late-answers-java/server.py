import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    d, a = s.recvfrom(100)
    if d == b"slow":
        time.sleep(0.5)
    s.sendto(b"value of " + d, a)
