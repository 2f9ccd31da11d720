// Watches the fleet with the official JavaScript client and prints what came of it as JSON.
// Usage: node live.mjs URL SCENARIO [TOKEN]
import { io } from "socket.io-client";

const [url, scenario, token] = process.argv.slice(2);
const EVENTS = ["metrics_update", "ai_status_update", "system_alert"];
const WAYS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };

function open(options) {
  const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
  socket.seen = {};
  socket.number = 0;
  for (const name of EVENTS) {
    socket.on(name, (payload, confirm) => {
      (socket.seen[name] ??= []).push(payload);
      socket.number += 1;
      confirm?.();
    });
  }
  return socket;
}

const once = (socket, name) => new Promise((resolve) => socket.once(name, resolve));
const ask = (socket, name, ...values) => socket.timeout(5000).emitWithAck(name, ...values);

async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function watch(transports, options) {
  const socket = open({ transports, ...options });
  const upgraded = transports.length > 1 ? new Promise((resolve) => socket.io.engine.once("upgrade", resolve)) : null;
  await once(socket, "connect");
  await upgraded;
  const answer = await ask(socket, "request_update");
  const rate = await ask(socket, "set_rate", { hz: 0.5 });
  const topics = await ask(socket, "subscribe", { topics: ["system_alert", "nonsense"] });
  socket.emit("subscribe", new Uint8Array([1, 2, 3]));
  await until(() => socket.number >= EVENTS.length + 1);
  const result = { transport: socket.io.engine.transport.name, answer, rate, topics, seen: socket.seen };
  socket.disconnect();
  return result;
}

async function refused(namespace, auth) {
  const socket = io(url + namespace, { forceNew: true, transports: ["websocket"], auth });
  const error = await once(socket, "connect_error");
  socket.disconnect();
  return { message: error.message, data: error.data ?? null, again: socket.active };
}

const scenarios = {
  async watch() {
    const ways = Object.entries(WAYS).map(async ([name, transports]) => [name, await watch(transports)]);
    return Object.fromEntries(await Promise.all(ways));
  },
  async reference() {
    const socket = io(url);
    const [first, status, alert] = await Promise.all(EVENTS.map((name) => once(socket, name)));
    socket.disconnect();
    return {
      metrics: Object.keys(first.metrics),
      status: first.ollama_status,
      text: status.text,
      alert: alert.rule,
      server: alert.subject.server,
    };
  },
  async confirm() {
    const socket = open({ transports: ["websocket"], auth: { acks: true } });
    await until(() => socket.number >= 8);
    socket.disconnect();
    return { seen: socket.seen };
  },
  async keys() {
    const { message, data, again } = await refused("/", { token: "wrong" });
    const { transport } = await watch(["polling", "websocket"], { auth: { token } });
    return { message, reason: data.reason, again, transport, namespace: await refused("/admin", { token }) };
  },
  async restart() {
    const sockets = Object.values(WAYS).map((transports) => open({ transports }));
    // Each by itself: one may be back before the last has noticed that it is cut off.
    const back = sockets.map(async (socket) => {
      await once(socket, "connect");
      const cut = once(socket, "disconnect");
      socket.emit("set_rate", { hz: 0.5 }); // says that it knows to be connected: the server knows earlier
      const reason = await cut;
      await once(socket, "connect");
      return reason;
    });
    const reasons = await Promise.all(back);
    await until(() => sockets.every((socket) => EVENTS.every((name) => name in socket.seen)));
    sockets.forEach((socket) => socket.disconnect());
    return { reasons };
  },
};

try {
  console.log(JSON.stringify(await scenarios[scenario]()));
} catch (error) {
  console.log(JSON.stringify({ error: error.message, name: error.name }));
}
