const fs = require("fs");
const tls = require("tls");

const options = { key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem") };
const server = tls.createServer(options, (socket) => {
  socket.on("data", (data) => socket.write(data.toString().toUpperCase()));
});
server.on("tlsClientError", (error) => console.log("handshake failed"));
server.listen(Number(process.argv[2]), "127.0.0.1");
