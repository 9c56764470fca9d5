const http = require('http');

http.createServer((req, res) => {
  res.end('hello ' + req.headers.cookie.length);
}).listen(Number(process.argv[2]));
