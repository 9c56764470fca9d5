const https = require('https');

https.get(`https://localhost:${process.argv[2]}/`, (res) => {
  res.on('data', (d) => console.log(d.toString()));
}).on('error', (e) => {
  console.log('request failed');
  process.exit(1);
});
