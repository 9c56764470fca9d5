import socket, struct, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"temperature".ljust(32, b"\0"))
    time.sleep(0.3)  # the sensor takes its time
    try:
        s.sendall(struct.pack("!d", 21.5))
        print(s.recv(100))
    except OSError as error:
        print(error)
