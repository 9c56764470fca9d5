const net = require('net');

const socket = net.connect(+process.argv[2], '127.0.0.1');
let reply = '';
socket.setEncoding('utf8');
socket.end('10.50 20 30.25\n');
socket.on('data', (d) => { reply += d; });
socket.on('end', () => {
  console.log(reply ? 'server: ' + reply.trim() : 'empty reply');
  process.exitCode = reply ? 0 : 1;
});
