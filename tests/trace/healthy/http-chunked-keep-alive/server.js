const http = require("http");

http
  .createServer((request, response) => {
    for (const word of ["one", "two", "three"]) response.write(word.repeat(1000));
    response.end();
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
