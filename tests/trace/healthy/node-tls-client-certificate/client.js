const tls = require('tls');
const fs = require('fs');

const key = fs.readFileSync('key.pem');
const cert = fs.readFileSync('cert.pem');
const socket = tls.connect({ key, cert, port: Number(process.argv[2]), host: 'localhost', ca: fs.readFileSync('cert.pem') }, () => {
  console.log('connected');
});
socket.on('data', (d) => console.log(d.toString()));
socket.on('error', (e) => {
  console.log('failed');
  process.exit(1);
});
