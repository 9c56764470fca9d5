# a load balancer's health check: keeps a connection open
import socket
import sys
import time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(2)
