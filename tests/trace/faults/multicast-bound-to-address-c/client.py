import socket
import sys
import time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
for price in (101, 102, 99):
    s.sendto(b"ACME %d" % price, ("239.7.7.7", int(sys.argv[1])))
    time.sleep(0.1)
