exec nc -l 127.0.0.1 $1 > received
