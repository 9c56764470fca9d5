head -c 500000 /dev/zero > large.bin
curl -sS http://127.0.0.1:$1/hello http://127.0.0.1:$1/hello
curl -sS -o /dev/null http://127.0.0.1:$1/large.bin
curl -sS -o /dev/null -r 0-99 http://127.0.0.1:$1/large.bin
