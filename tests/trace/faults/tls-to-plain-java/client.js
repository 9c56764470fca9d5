const https = require("https");

process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
https
  .get({ host: "127.0.0.1", port: Number(process.argv[2]), path: "/" }, (response) => {
    response.on("data", (chunk) => console.log(chunk.toString()));
  })
  .on("error", (error) => console.log(error.code));
