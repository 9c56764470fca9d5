const net = require('net');

const server = net.createServer({ allowHalfOpen: true }, (client) => {
  const up = net.connect({ port: +process.argv[3], host: '127.0.0.1', allowHalfOpen: true });
  client.pipe(up);
  up.pipe(client);
  client.on('error', (e) => { console.log('client', e.code); up.destroy(); });
  up.on('error', (e) => { console.log('upstream', e.code); client.destroy(); });
  client.on('close', () => server.close());
});
server.listen(+process.argv[2], '127.0.0.1');
