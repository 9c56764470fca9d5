import socket, sys, threading, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server = ("127.0.0.1", int(sys.argv[1]))
s.sendto(b"I am in", server)

def show():
    while True:
        print(s.recv(1000))

threading.Thread(target=show, daemon=True).start()
for number in range(3):
    time.sleep(0.4)
    s.sendto(b"line %d" % number, server)
time.sleep(0.5)
