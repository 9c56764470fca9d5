import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(600):
    s.sendto(b"%4d" % number + bytes(1396), ("127.0.0.1", int(sys.argv[1])))
time.sleep(4)
