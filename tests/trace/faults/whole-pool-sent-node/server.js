const dgram = require('dgram');

const prices = { ACME: 12.5, INIT: 99.1, HOOL: 310.0 };
const server = dgram.createSocket('udp4');

function answer(query) {
  const parts = [Buffer.from('{"symbol":"'), query, Buffer.from(`","price":${prices[query] ?? null}}`)];
  return Buffer.concat(parts);
}

server.on('message', (query, from) => {
  const bytes = new Uint8Array(answer(query).buffer);
  server.send(bytes, from.port, from.address);
});
server.bind(+process.argv[2], '127.0.0.1');
