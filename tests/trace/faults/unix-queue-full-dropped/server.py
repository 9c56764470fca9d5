import socket, time

s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("log.sock")
while True:
    print(s.recv(1000))
    time.sleep(0.05)
