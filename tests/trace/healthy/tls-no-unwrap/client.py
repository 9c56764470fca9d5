import ssl, sys, urllib.request

context = ssl._create_unverified_context()
with urllib.request.urlopen("https://127.0.0.1:" + sys.argv[1] + "/", context=context) as response:
    print(len(response.read()))
