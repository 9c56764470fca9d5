import socket, sys, time

cache = socket.socket()
if cache.connect_ex(("127.0.0.1", int(sys.argv[2]))) != 0:
    print("no cache: continue without")
    cache.close()
time.sleep(0.5)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"x")
print(s.recv(10))
s.close()
