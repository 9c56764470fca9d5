const net = require('net');

net.createServer((socket) => {
  socket.on('data', (data) => {
    let request;
    try {
      request = JSON.parse(data.toString());
    } catch (e) {
      console.log('bad request');
      return;
    }
    socket.write(JSON.stringify({ ok: true, items: request.items.length }));
  });
  socket.on('error', () => {});
}).listen(Number(process.argv[2]));
