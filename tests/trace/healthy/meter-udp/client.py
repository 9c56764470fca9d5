import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))


def call(num, text):
    wait = 0.2
    for attempt in range(5):
        try:
            s.send(b"%d %s" % (num, text.encode()))
            s.settimeout(wait)
            while True:
                got, _, answer = s.recv(2048).decode().partition(" ")
                if int(got) == num:
                    return answer, attempt
        except (socket.timeout, ConnectionRefusedError):
            wait *= 2
    sys.exit("no answer to %d" % num)


readings = [5, 7, 11, 13, 17, 19]
for i, r in enumerate(readings):
    answer, again = call(i, str(r))
    print(i, answer, "" if not again else "after %d more" % again)
answer, _ = call(len(readings), "BYE")
print(answer)
sys.exit(0 if answer == "BYE %d" % sum(readings) else 1)
