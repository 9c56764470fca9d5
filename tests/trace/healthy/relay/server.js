const net = require('net');

const server = net.createServer({ allowHalfOpen: true }, (sock) => {
  let text = '';
  sock.setEncoding('utf8');
  sock.on('data', (d) => { text += d; });
  sock.on('end', () => {
    setTimeout(() => {
      const words = text.split(/\s+/).filter(Boolean);
      sock.end(`${words.length} words, ${text.length} characters\n`);
    }, 300);
  });
  sock.on('error', (e) => console.log('backend', e.code));
  sock.on('close', () => server.close());
});
server.listen(+process.argv[3], '127.0.0.1');
