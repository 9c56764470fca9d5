openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null
exec openssl s_server -accept 127.0.0.1:$1 -cert cert.pem -key key.pem -quiet -www
