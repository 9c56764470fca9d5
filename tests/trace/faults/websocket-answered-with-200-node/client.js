const http = require('http');
const crypto = require('crypto');

const request = http.request({
  port: Number(process.argv[2]),
  headers: {
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
  },
});
request.on('upgrade', (response, socket) => {
  console.log('connected');
  socket.end();
});
request.on('error', (e) => console.log(e.code));
request.end();
