import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(30):
    s.sendto(b"requests:1|c", ("127.0.0.1", int(sys.argv[1])))
    time.sleep(0.01)
s.close()
