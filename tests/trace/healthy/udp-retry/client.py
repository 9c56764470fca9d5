import socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.4)
for number in range(4):
    request = b"%d" % number
    for attempt in range(5):
        s.sendto(request, ("127.0.0.1", int(sys.argv[1])))
        try:
            while not s.recv(1500).endswith(request):
                pass
            break
        except TimeoutError:
            print("again")
s.close()
