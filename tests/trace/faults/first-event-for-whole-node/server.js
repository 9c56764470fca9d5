const net = require('net');
const crypto = require('crypto');

const server = net.createServer((sock) => {
  sock.setTimeout(5000, () => sock.destroy());
  sock.on('error', (e) => console.log('upload:', e.code));
  sock.once('data', (body) => {
    const sum = crypto.createHash('md5').update(body).digest('hex');
    console.log('stored', body.length, sum);
    sock.end(`stored ${body.length} ${sum}\n`);
  });
  sock.on('close', () => server.close());
});
server.listen(+process.argv[2], '127.0.0.1');
