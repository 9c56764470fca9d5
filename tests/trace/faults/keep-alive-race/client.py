import http.client, sys, time

api = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
api.request("GET", "/login")
print(api.getresponse().read())
time.sleep(0.7)
api.request("POST", "/order", body=b"one coffee")
print(api.getresponse().read())
