import socket, struct, sys

RECORD = struct.Struct("!32sd")

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, caller = server.accept()
connection.settimeout(5)  # nobody may hold us up
record = connection.recv(RECORD.size, socket.MSG_WAITALL)
if len(record) == RECORD.size:
    name, value = RECORD.unpack(record)
    connection.sendall(b"stored %s" % name.rstrip(b"\0"))
connection.close()
