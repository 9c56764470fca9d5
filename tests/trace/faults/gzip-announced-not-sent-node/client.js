const http = require('http');
const zlib = require('zlib');

http.get({ port: Number(process.argv[2]) }, (res) => {
  const text = res.headers['content-encoding'] === 'gzip' ? res.pipe(zlib.createGunzip()) : res;
  text.on('data', (d) => console.log(d.toString()));
  text.on('error', (e) => {
    console.log(e.code);
    process.exit(1);
  });
});
