const http = require("http");

const server = http.createServer((request, response) => response.end("ok\n"));
server.keepAliveTimeout = 400;
if ("keepAliveTimeoutBuffer" in server) server.keepAliveTimeoutBuffer = 0;
server.listen(Number(process.argv[2]), "127.0.0.1");
