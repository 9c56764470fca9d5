import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:%s/pdf" % sys.argv[1]).read())
