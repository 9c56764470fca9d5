import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.4)
for sequence in range(1, 9):
    began = time.time()
    s.sendto(b"Ping %d" % sequence, ("127.0.0.1", int(sys.argv[1])))
    try:
        print(s.recvfrom(1024), time.time() - began)
    except TimeoutError:
        print("Request timed out")
