// The WebSocket: messages out and in, and what to do when it closes.

export class Connection {
  constructor(onMessage, onState) {
    this.onMessage = onMessage;
    this.onState = onState;
    this.socket = null;
    this.job = "start";  // the type of the last request of which replies come
  }

  // Return a promise of an open connection.
  open() {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const socket = this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`);
      socket.addEventListener("open", () => { this.onState(true); resolve(); });
      socket.addEventListener("message", (event) => this.onMessage(JSON.parse(event.data)));
      socket.addEventListener("close", (event) => { this.onState(false, event.code); reject(new Error("closed")); });
    });
  }

  // Return whether the message is sent: the connection must be open.
  send(message) {
    if (["start", "judge", "measure"].includes(message.type)) this.job = message.type;
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }
}
