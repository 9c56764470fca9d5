import socket, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    stream = s.makefile("rw")
    for _ in range(4):
        print("slow", file=stream, flush=True)
        print(stream.readline())
        time.sleep(0.3)
    stream.close()
