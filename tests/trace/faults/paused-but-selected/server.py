import select, socket, sys, time

ROOM = 2  # jobs in the queue
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
queue, done = [], 0
started = time.monotonic()
while done < 5:
    readable, _, _ = select.select([connection], [], [], 0.2)
    if readable and len(queue) < ROOM:
        queue += connection.recv(8).split()
    if queue and time.monotonic() - started > 0.4 * (done + 1):
        connection.sendall(b"done: " + queue.pop(0) + b"\n")
        done += 1
