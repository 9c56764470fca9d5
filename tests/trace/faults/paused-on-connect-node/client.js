const net = require('net');

const sock = net.connect(+process.argv[2], '127.0.0.1', () => {
  sock.end(Buffer.alloc(20000, 'x'));
});
let reply = '';
sock.setEncoding('utf8');
sock.on('data', (d) => { reply += d; });
sock.on('end', () => console.log('reply:', reply.trim()));
sock.on('error', (e) => console.log('client:', e.message));
