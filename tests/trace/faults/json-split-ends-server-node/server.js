const net = require('net');

net.createServer((socket) => {
  socket.on('data', (data) => {
    const request = JSON.parse(data);
    socket.write(JSON.stringify({ ok: true, items: request.items.length }));
  });
}).listen(Number(process.argv[2]));
