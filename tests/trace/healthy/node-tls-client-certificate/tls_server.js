const tls = require('tls');
const fs = require('fs');

tls.createServer({
  key: fs.readFileSync('key.pem'),
  cert: fs.readFileSync('cert.pem'),
  ca: fs.readFileSync('cert.pem'),
  requestCert: true,
}, (socket) => {
  socket.end('welcome');
}).listen(Number(process.argv[2]));
