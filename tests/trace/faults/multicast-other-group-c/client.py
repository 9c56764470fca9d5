import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(5):
    s.sendto(b"tick %d" % number, ("239.1.2.3", int(sys.argv[1])))
    time.sleep(0.1)
