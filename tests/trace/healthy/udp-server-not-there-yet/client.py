import socket, sys, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.settimeout(0.3)
while True:
    try:
        s.send(b"hello?")
        print(s.recv(100))
        break
    except (ConnectionRefusedError, TimeoutError):
        time.sleep(0.1)
s.close()
