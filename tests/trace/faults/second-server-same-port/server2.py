import socket, sys, time

time.sleep(0.5)
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
s.accept()
