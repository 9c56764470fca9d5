mkdir -p site && echo "<p>hello" > site/index.html && head -c 300000 /dev/zero > site/large
cd site && exec python3 -u -m http.server --bind 127.0.0.1 $1
