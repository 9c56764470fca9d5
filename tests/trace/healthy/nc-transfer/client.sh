head -c 200000 /dev/zero | nc -N 127.0.0.1 $1
