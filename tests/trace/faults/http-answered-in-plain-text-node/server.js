const net = require('net');

net.createServer((socket) => {
  socket.on('data', () => {
    socket.end('Hello from my server\r\n');
  });
  socket.on('error', () => {});
}).listen(Number(process.argv[2]));
