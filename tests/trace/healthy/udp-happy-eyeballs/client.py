import select, socket, sys

port = int(sys.argv[1])
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six.sendto(b"initial", ("::1", port))
ready, _, _ = select.select([six], [], [], 0.25)
if not ready:
    four.sendto(b"initial", ("127.0.0.1", port))
ready, _, _ = select.select([six, four], [], [], 2)
print(ready[0].recv(100))
