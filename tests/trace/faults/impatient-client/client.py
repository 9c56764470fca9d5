import socket, sys, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=1)
s.sendall(b"select 1")
try:
    print(s.recv(100))
except TimeoutError:
    print("no answer")
s.close()
time.sleep(1.5)
