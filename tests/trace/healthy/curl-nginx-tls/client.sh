curl -sS --cacert cert.pem https://localhost:$1/ https://localhost:$1/again
