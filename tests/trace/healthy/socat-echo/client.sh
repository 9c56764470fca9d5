echo hello | socat - TCP:127.0.0.1:$1
seq 1 2000 | socat -t 2 - TCP:127.0.0.1:$1 | tail -n 1
