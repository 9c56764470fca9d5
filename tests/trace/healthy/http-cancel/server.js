const http = require('http');

const server = http.createServer((req, res) => {
  res.on('error', () => {});
  if (req.url === '/feed') {
    res.writeHead(200, { 'Content-Type': 'text/plain' });
    let n = 0;
    const timer = setInterval(() => res.write(`item ${++n}\n`), 100);
    res.on('close', () => {
      clearInterval(timer);
      console.log(`feed closed after ${n} items`);
    });
  } else if (req.url === '/upload') {
    let size = 0;
    req.on('error', () => {});
    req.on('data', (d) => { size += d.length; });
    req.on('end', () => res.end(`got ${size}`));
  } else if (req.url === '/shutdown') {
    res.setHeader('Connection', 'close');
    res.end('stopping', () => {
      server.close(() => console.log('server stopped'));
      server.closeIdleConnections();
    });
  } else {
    res.writeHead(204).end();
  }
});
server.keepAliveTimeout = 5000;
server.listen(+process.argv[2], '127.0.0.1');
