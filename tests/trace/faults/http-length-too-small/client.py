import sys, urllib.request

with urllib.request.urlopen("http://127.0.0.1:" + sys.argv[1] + "/") as response:
    print(response.read())
