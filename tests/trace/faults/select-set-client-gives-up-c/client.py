import socket, sys, time
time.sleep(0.7)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(0.6)
s.sendall(b"hello\n")
try:
    print(s.recv(100))
except TimeoutError:
    sys.exit("no answer")
