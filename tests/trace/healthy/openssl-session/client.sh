printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -connect 127.0.0.1:$1 -quiet 2>/dev/null | tail -n 2
