const http = require('http');
http.createServer((req, res) => {
  let body = '';
  req.on('data', (d) => { body += d; });
  req.on('end', () => { res.end('temperature ' + body + ' stored\n'); });
}).listen(Number(process.argv[2]), '127.0.0.1');
