echo ping | socat -t 0.5 - UDP:127.0.0.1:$1
