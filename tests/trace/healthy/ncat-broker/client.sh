echo one line | ncat --send-only 127.0.0.1 $1
echo another | ncat 127.0.0.1 $1
