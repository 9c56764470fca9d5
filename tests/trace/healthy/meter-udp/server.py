import sys
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.settimeout(8)
seen = {}
lossy = {2, 5}
total = 0
done = False
while True:
    try:
        data, peer = s.recvfrom(2048)
    except socket.timeout:
        break
    num, _, text = data.decode().partition(" ")
    num = int(num)
    if num in lossy:
        lossy.discard(num)
        continue
    if num not in seen:
        if text == "BYE":
            seen[num] = "%d BYE %d" % (num, total)
            done = True
        else:
            total += int(text)
            seen[num] = "%d OK" % num
    s.sendto(seen[num].encode(), peer)
    if num == 3:
        s.sendto(seen[num].encode(), peer)
    if done:
        s.settimeout(1.5)
print("total", total)
