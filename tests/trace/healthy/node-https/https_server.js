const fs = require("fs");
const https = require("https");

https
  .createServer({ key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem") }, (request, response) => {
    response.end(request.url.repeat(500));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
