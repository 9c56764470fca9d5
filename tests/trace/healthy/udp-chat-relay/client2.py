import socket, sys, threading, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server = ("127.0.0.1", int(sys.argv[1]))

def show():
    while True:
        print(s.recv(1000))

s.sendto(b"me too", server)
threading.Thread(target=show, daemon=True).start()
time.sleep(1)
s.sendto(b"bye", server)
time.sleep(1.5)
