curl -sS -o /dev/null -o /dev/null http://127.0.0.1:$1/ http://127.0.0.1:$1/large
curl -sS http://127.0.0.1:$1/missing >/dev/null
