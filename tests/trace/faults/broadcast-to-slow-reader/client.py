import socket, sys, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(0.6)
s.sendall(b"dump")
time.sleep(60)
