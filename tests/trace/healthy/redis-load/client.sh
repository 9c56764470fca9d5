redis-benchmark -h 127.0.0.1 -p $1 -t set,get,lpush -c 4 -n 400 -d 64 -q > /dev/null
redis-benchmark -h 127.0.0.1 -p $1 -t get -c 4 -n 400 -P 8 -q > /dev/null
redis-cli -p $1 lrange mylist 0 20 > /dev/null
