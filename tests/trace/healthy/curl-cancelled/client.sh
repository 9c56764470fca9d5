curl -sS --max-time 0.5 --limit-rate 500k -o /dev/null http://127.0.0.1:$1/
true
