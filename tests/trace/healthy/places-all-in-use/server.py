"""At most three clients at a time are served."""
import socket
import sys
import threading

slots = threading.BoundedSemaphore(3)


def serve(conn):
    try:
        with conn, conn.makefile("rwb") as stream:
            for line in stream:
                number = int(line)
                if number % 2:
                    stream.write(b"ERROR odd\n")
                else:
                    stream.write(b"OK %d\n" % (number // 2))
                stream.flush()
    finally:
        slots.release()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    slots.acquire()
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
