const http = require('http');
const zlib = require('zlib');

const req = http.request({ port: Number(process.argv[2]), method: 'POST', agent: false }, (res) => {
  res.pipe(zlib.createGunzip()).on('data', (d) => console.log(d.toString()));
});
req.write('a body ');
req.end('in chunks');
