const net = require('net');
const crypto = require('crypto');

const base = ['東京都', '大阪市', '札幌市', '福岡県', '名古屋', '横浜港'];
const cities = [];
for (let i = 0; i < 20000; i++) cities.push(base[i % base.length] + i);
const text = JSON.stringify(cities);
const sum = crypto.createHash('md5').update(text).digest('hex');

const server = net.createServer((socket) => {
  socket.on('error', (e) => console.log('socket:', e.message));
  socket.write(sum + ' ');
  socket.end(text);
});
server.listen(+process.argv[2], '127.0.0.1');
