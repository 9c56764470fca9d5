import http.client, ssl, sys

context = ssl._create_unverified_context()
try:
    api = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
    api.request("GET", "/")
except ssl.SSLError:
    api = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    for method in ("HEAD", "GET", "HEAD"):
        api.request(method, "/")
        print(api.getresponse().read())
