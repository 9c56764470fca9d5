const net = require('net');

const records = [];
for (let i = 0; i < 120000; i++) {
  records.push({ id: i, level: i % 7 ? 'info' : 'warn', text: 'user ' + (i % 313) + ' opened page ' + (i * 31 % 977) });
}

const socket = net.connect(+process.argv[2], '127.0.0.1', () => {
  socket.end(records.map((r) => JSON.stringify(r) + '\n').join(''));
  console.log(`shipped ${records.length} records`);
  process.exit(0);
});
socket.on('error', (err) => {
  console.error('shipping failed:', err.message);
  process.exit(1);
});
