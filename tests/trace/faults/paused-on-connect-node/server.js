const net = require('net');

const tokens = new Map([['127.0.0.1', 'internal']]);

function lookup(address) {
  return new Promise((resolve) => setTimeout(() => resolve(tokens.get(address)), 50));
}

const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, async (sock) => {
  sock.on('error', (e) => console.log('socket:', e.message));
  const role = await lookup(sock.remoteAddress);
  if (!role) {
    sock.destroy();
    return;
  }
  let size = 0;
  sock.on('data', (chunk) => { size += chunk.length; });
  sock.on('end', () => {
    console.log(`${role}: ${size} bytes`);
    sock.end(`stored ${size}\n`);
  });
});

server.listen(+process.argv[2], '127.0.0.1', () => console.log('upload server ready'));
