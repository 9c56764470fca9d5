// Node.js's own server: what it decodes is its library's.
require("node:http")
    .createServer((request, response) => request.pipe(response))
    .listen(Number(process.argv[2]), "127.0.0.1", 511);
