import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
c.request("GET", "/file")
r = c.getresponse()
print(r.status, len(r.read()))
