// The sockets at one moment of a run: TCP states, and how many bytes are where between the two programs.

import { append, element } from "./dom.js";

const [, TCP, SENT, RECEIVED, UNACKNOWLEDGED, UNREAD, QUEUED, CLOSED] = [0, 1, 2, 3, 4, 5, 6, 7];
const MEANINGS = {
  "LISTEN": "waits for connections", "SYN-SENT": "has asked for a connection",
  "SYN-RECEIVED": "has answered, and waits for the last part of the handshake",
  "ESTABLISHED": "connected, both directions are open",
  "FIN-WAIT-1": "has sent its FIN, which is not acknowledged yet",
  "FIN-WAIT-2": "its FIN is acknowledged; it waits for the other end's FIN",
  "CLOSE-WAIT": "the other end has sent its FIN, this one not yet: it can still send",
  "LAST-ACK": "has sent the second FIN, and waits for its acknowledgement",
  "CLOSING": "both ends have sent FIN at the same time",
  "TIME-WAIT": "both FINs are acknowledged; the kernel keeps the address for a while",
  "CLOSED": "no connection any longer",
};

export class Moment {
  constructor(place) {
    this.place = place;
    this.clear();
  }

  clear() {
    this.sockets = new Map();
    this.steps = [];  // by row: the states that it changes
    this.place.replaceChildren();
    this.place.hidden = true;
  }

  add(sockets) {
    for (const [number, socket] of Object.entries(sockets)) this.sockets.set(Number(number), socket);
  }

  // Return the states after a row, by socket.
  at(row) {
    const found = new Map();
    for (const states of this.steps.slice(0, row + 1))
      for (const state of states || []) if (this.sockets.has(state[0])) found.set(state[0], state);
    return found;
  }

  show(row) {
    const states = this.at(row);
    this.place.replaceChildren();
    this.place.hidden = states.size === 0;
    if (!states.size) return;
    append(this.place, "h2", "Sockets at this moment");
    const done = new Set();
    for (const [number, state] of states) {
      if (done.has(number)) continue;
      const socket = this.sockets.get(number);
      const peer = socket.listens ? null : this.peerOf(number, states);
      done.add(number);
      if (peer) done.add(peer);
      if (socket.listens) this.showListener(socket, state);
      else this.showConnection(this.ordered(number, peer), states);
    }
  }

  peerOf(number, states) {
    const socket = this.sockets.get(number);
    if (!socket.local || !socket.peer) return null;
    for (const other of states.keys()) {
      const each = this.sockets.get(other);
      if (other !== number && each.local === socket.peer && each.peer === socket.local && !each.listens) return other;
    }
    return null;
  }

  // The server is drawn on the left, as on the timeline.
  ordered(number, peer) {
    if (!peer) return [number, null];
    const isServer = (each) => this.sockets.get(each).role.startsWith("server");
    return isServer(peer) && !isServer(number) ? [peer, number] : [number, peer];
  }

  showListener(socket, state) {
    const box = append(this.place, "div", "", `connection${state[CLOSED] ? " closed" : ""}`);
    const head = append(box, "p", "", "ends");
    append(head, "b", socket.role);
    this.addState(head, state, socket);
    append(head, "span", socket.local, "address");
    if (!state[CLOSED]) append(box, "p", `accept queue: ${state[QUEUED]}`, state[QUEUED] ? "queue some" : "queue");
  }

  showConnection([left, right], states) {
    const one = states.get(left), other = right ? states.get(right) : null;
    const ended = (state) => !state || state[CLOSED];
    const box = append(this.place, "div", "", `connection${ended(one) && ended(other) ? " closed" : ""}`);
    const ends = append(box, "div", "", "ends two");
    for (const number of right ? [left, right] : [left]) {
      const socket = this.sockets.get(number), end = append(ends, "div");
      append(end, "b", socket.role || "program");
      this.addState(end, states.get(number), socket);
      append(end, "span", socket.local, "address");
    }
    if (!right) append(append(ends, "div"), "span", this.sockets.get(left).peer || "no peer", "address");
    const unit = this.sockets.get(left).kind === "datagram" ? "datagrams" : "bytes";
    this.addFlow(box, one, other, "right", unit, this.sockets.get(left), right && this.sockets.get(right));
    this.addFlow(box, other, one, "left", unit, right && this.sockets.get(right), this.sockets.get(left));
  }

  addState(parent, state, socket) {
    const name = state[TCP] || (state[CLOSED] ? "closed" : socket.kind === "datagram" ? "open" : "");
    if (!name) return;
    const shown = append(parent, "span", name, `tcp ${name.toLowerCase()}`);
    if (MEANINGS[name]) shown.title = MEANINGS[name];
  }

  // What one end has sent, and where it is: still to be acknowledged, unread at the other end, or received.
  addFlow(box, from, to, side, unit, sender, receiver) {
    const sent = from ? from[SENT] : null, received = to ? to[RECEIVED] : null;
    if (!sent && !received) return;
    const unread = to ? to[UNREAD] : null, flight = from ? from[UNACKNOWLEDGED] : null;
    const total = Math.max(sent || 0, (received || 0) + (unread || 0), 1);
    const flow = append(box, "div", "", `flow ${side}`);
    const words = [];
    if (sent !== null) words.push(`${count(sent)} sent`);
    if (flight) words.push(`${count(flight)} not acknowledged`);
    if (unread) words.push(`${count(unread)} unread`);
    if (received !== null) words.push(`${count(received)} received`);
    const bar = append(flow, "div", "", "pipe");
    bar.setAttribute("role", "img");
    const title = `${sender ? sender.role : "the peer"} to ${receiver ? receiver.role : "the peer"}, ${unit}: ${words.join(", ")}`;
    bar.setAttribute("aria-label", title);
    bar.title = title;
    // An acknowledged byte may be unread, one that has arrived may be unacknowledged: the latter is not drawn twice.
    const waiting = Math.max(0, Math.min(flight || 0, total - (received || 0) - (unread || 0)));
    const parts = [["received", received || 0], ["unread", unread || 0], ["flight", waiting]];
    for (const [name, size] of side === "right" ? [...parts].reverse() : parts) {
      if (!size) continue;
      append(bar, "i", "", name).style.flexGrow = Math.max(size / total, 0.04);
    }
    const text = append(flow, "p", "", "figures");
    text.append(element("span", side === "right" ? "→ " : "← ", "muted"));
    words.forEach((each, at) => {
      if (at) text.append(", ");
      const kind = each.endsWith("unread") ? "unread" : each.endsWith("acknowledged") ? "flight" : "";
      append(text, "span", each, kind);
    });
    text.append(element("span", ` (${unit})`, "muted"));
  }
}

const count = (number) => number.toLocaleString("en");
