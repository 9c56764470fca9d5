const http = require('http');

http.createServer((req, res) => {
  const body = JSON.stringify({ temperature: 21.5 });
  res.writeHead(200, {
    'Content-Type': 'application/json',
    'Content-Encoding': 'gzip',
    'Content-Length': Buffer.byteLength(body),
  });
  res.end(body);
}).listen(Number(process.argv[2]));
