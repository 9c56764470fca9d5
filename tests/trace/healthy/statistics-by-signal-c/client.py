import socket, sys, time

time.sleep(0.6)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(s.recv(100), s.recv(1))
s.close()
