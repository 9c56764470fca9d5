import random, socket, sys

random.seed(4)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
while True:
    message, address = s.recvfrom(1024)
    if random.randint(1, 10) > 4:
        s.sendto(message.upper(), address)
