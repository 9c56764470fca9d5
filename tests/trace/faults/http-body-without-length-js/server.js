const http = require('http');

const server = http.createServer((req, res) => {
  let body = '';
  req.setEncoding('utf8');
  req.on('data', (d) => { body += d; });
  req.on('end', () => {
    if (!body) {
      res.writeHead(422, { 'Content-Type': 'text/plain' });
      res.end('empty report\n');
      return;
    }
    const r = JSON.parse(body);
    console.log('sensor', r.id, r.temp);
    res.writeHead(201, { 'Content-Type': 'text/plain' });
    res.end('stored\n');
  });
});
server.on('connection', (s) => s.on('close', () => server.close()));
server.listen(+process.argv[2], '127.0.0.1');
