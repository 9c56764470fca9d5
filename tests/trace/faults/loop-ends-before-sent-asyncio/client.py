import http.client, sys, time
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
c.request("GET", "/report")
time.sleep(0.5)
print(len(c.getresponse().read()))
