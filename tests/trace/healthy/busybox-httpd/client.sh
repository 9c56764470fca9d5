busybox wget -q -O - http://127.0.0.1:$1/
curl -sS http://127.0.0.1:$1/index.html
