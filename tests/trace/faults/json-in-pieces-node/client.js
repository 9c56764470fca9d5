const net = require('net');

const items = [];
for (let i = 0; i < 20000; i++) items.push({ id: i, name: 'article number ' + i });

const client = net.connect(Number(process.argv[2]), '127.0.0.1', () => {
  client.write(JSON.stringify({ items }));
});
client.on('data', (data) => {
  console.log('server: ' + data);
  client.end();
});
