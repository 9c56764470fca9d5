import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/greeting")
print(connection.getresponse().read())
