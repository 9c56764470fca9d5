const tls = require('tls');
const fs = require('fs');

const socket = tls.connect({ port: Number(process.argv[2]), host: 'localhost', ca: fs.readFileSync('cert.pem') }, () => {
  console.log('connected');
});
socket.on('data', (d) => console.log(d.toString()));
socket.on('error', (e) => {
  console.log('failed');
  process.exit(1);
});
