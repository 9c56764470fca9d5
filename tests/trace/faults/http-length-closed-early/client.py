import http.client, json, sys

c = http.client.HTTPConnection("localhost", int(sys.argv[1]))
c.request("GET", "/health")
print(json.loads(c.getresponse().read()))
