import socket, sys, time

time.sleep(0.7)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
data, peer = s.recvfrom(100)
s.sendto(b"hello!", peer)
s.close()
