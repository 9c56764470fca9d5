const http = require('http');

function lookup(id, done) {
  setTimeout(() => done({ id, name: 'Ann' }), 50);
}

http.createServer((req, res) => {
  if (!req.headers.authorization) {
    res.statusCode = 401;
    return res.end('log in first');
  }
  lookup(req.url, (user) => {
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(user));
  });
}).listen(Number(process.argv[2]));
