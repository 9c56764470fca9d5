head -c 3000000 /dev/zero > body
curl -sS -H "Expect: 100-continue" --data-binary @body http://127.0.0.1:$1/upload
