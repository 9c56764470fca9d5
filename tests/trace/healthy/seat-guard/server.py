import sys
import socket
import struct
import threading

SEATS = 2
taken = 0
lock = threading.Lock()
ls = socket.create_server(("127.0.0.1", int(sys.argv[1])))


def attend(conn):
    global taken
    with conn:
        try:
            with conn.makefile("rwb") as f:
                f.write(b"SEATED\n")
                f.flush()
                for line in f:
                    if line == b"LEAVE\n":
                        break
                    f.write(b"echo " + line)
                    f.flush()
                f.write(b"BYE\n")
        except OSError as e:
            print("guest:", e)
        finally:
            with lock:
                taken -= 1


guests = []
while len(guests) < 3:
    conn, _ = ls.accept()
    with lock:
        full = taken >= SEATS
        if not full:
            taken += 1
    if full:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.close()
        continue
    t = threading.Thread(target=attend, args=(conn,))
    t.start()
    guests.append(t)
ls.close()
for t in guests:
    t.join()
