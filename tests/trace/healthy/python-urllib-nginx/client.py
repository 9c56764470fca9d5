import sys, urllib.request

for path in ("a", "b"):
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/{path}") as answer:
        print(answer.read())
