import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
for word in (b"one", b"two"):
    s.sendto(word, ("127.0.0.1", int(sys.argv[1])))
    try:
        print(s.recv(100))
    except OSError as error:
        print(error)
    time.sleep(0.3)
