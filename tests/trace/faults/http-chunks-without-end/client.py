import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/words")
response = connection.getresponse()
print(response.status, response.read())
