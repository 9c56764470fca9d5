const dgram = require('dgram');
function report(metric, value) {
  const s = dgram.createSocket('udp4');
  s.send(`${metric}:${value}|c`, Number(process.argv[2]), 'localhost');
  s.close();
}
report('logins', 1);
report('errors', 3);
setTimeout(() => console.log('reported'), 300);
