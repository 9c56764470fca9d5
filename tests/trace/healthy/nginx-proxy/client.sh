curl -sS -o /dev/null -o /dev/null -o /dev/null http://127.0.0.1:$1/a http://127.0.0.1:$1/b http://127.0.0.1:$1/c
