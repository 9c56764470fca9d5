import sys
import socket, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rw", newline="\n")
f.write("BEGIN\n"); f.flush(); print(f.readline())
f.write("a=15\n"); f.flush(); print(f.readline())
time.sleep(60)          # the user went for lunch
f.write("COMMIT\n"); f.flush(); print(f.readline())
