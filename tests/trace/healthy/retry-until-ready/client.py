import socket, sys, time

for attempt in range(50):
    try:
        s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
        break
    except ConnectionRefusedError:
        time.sleep(0.2)
s.sendall(b"ready?\n")
print(s.recv(10))
s.close()
