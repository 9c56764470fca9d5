const net = require('net');
const server = net.createServer((socket) => {
  console.log('device connected', socket.remotePort);
  socket.on('end', () => console.log('device finished'));
  socket.on('error', (e) => console.log(e.message));
});
server.listen(Number(process.argv[2]), '127.0.0.1');
