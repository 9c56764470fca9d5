import queue, socket, sys, threading, time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
jobs = queue.Queue()

def work():
    while True:
        data, peer = jobs.get()
        time.sleep(0.4)
        s.sendto(data[::-1], peer)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
while True:
    jobs.put(s.recvfrom(1000))
