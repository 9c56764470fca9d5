openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem -days 2 2> /dev/null
exec python3 mail_server.py "$1"
