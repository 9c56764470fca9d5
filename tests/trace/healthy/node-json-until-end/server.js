const net = require('net');

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (data) => { text += data; });
  socket.on('end', () => setTimeout(() => {
    const request = JSON.parse(text);
    socket.end(JSON.stringify({ ok: true, items: request.items.length }));
    server.close();
  }, 1200));
});
server.listen(Number(process.argv[2]));
