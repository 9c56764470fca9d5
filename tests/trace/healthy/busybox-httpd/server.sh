mkdir -p www && echo "from busybox" > www/index.html
exec busybox httpd -f -p 127.0.0.1:$1 -h www
