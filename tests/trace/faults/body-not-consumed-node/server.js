const http = require('http');

const jobs = [{ id: 1, what: 'resize' }, { id: 2, what: 'mail' }];

const server = http.createServer((req, res) => {
  if (req.url === '/health') {
    res.writeHead(200, { 'Content-Type': 'text/plain' });
    res.end('all systems go\n');
  } else if (req.url === '/jobs') {
    const body = JSON.stringify(jobs);
    res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    res.end(body);
  } else {
    res.writeHead(404);
    res.end();
  }
});
server.keepAliveTimeout = 65000;
server.listen(+process.argv[2], '127.0.0.1');
