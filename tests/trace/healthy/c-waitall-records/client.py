import socket, struct, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for turn in range(4):
        record = struct.pack("!16I", *range(turn, turn + 16))
        s.sendall(record[:20])
        time.sleep(0.05)
        s.sendall(record[20:])
        print(struct.unpack("!I", s.recv(4, socket.MSG_WAITALL)))
