const http = require('http');

http.get(`http://localhost:${process.argv[2]}/`, (res) => {
  res.on('data', (d) => console.log(d.toString()));
}).on('error', (e) => {
  console.log('failed');
  process.exit(1);
});
