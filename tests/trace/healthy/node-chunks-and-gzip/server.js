const http = require('http');
const zlib = require('zlib');

const server = http.createServer((req, res) => {
  let size = 0;
  req.on('data', (chunk) => { size += chunk.length; });
  req.on('end', () => {
    res.writeHead(200, { 'Content-Encoding': 'gzip' });
    const gzip = zlib.createGzip();
    gzip.pipe(res);
    gzip.end(JSON.stringify({ size }));
  });
  res.on('finish', () => server.close());
});
server.listen(Number(process.argv[2]));
