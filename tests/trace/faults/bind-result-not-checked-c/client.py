import socket, sys, time

time.sleep(0.3)
s = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
print(s.recv(10))
