import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(0.5)
s.sendall(b"what is it?\n")
while True:
    try:
        print(s.recv(100))
        break
    except TimeoutError:
        print("still waiting")
s.close()
