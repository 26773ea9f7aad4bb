// Calls, by the reference client and against any gateway, the methods whose replies the published
// schema does not describe, and hears the events that it does not describe. Says what each held: one
// object with the replies, a method each, and the events, a name each. The gateway has
// `gateway.nodes.pairing.autoApproveLocal: false`, so that every device asks.
import { createHash, createPublicKey, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { pathToFileURL } from "node:url";

const { PEERS, URL: url, TOKEN: token } = process.env;
const { GatewayClient } = await import(
  pathToFileURL(`${PEERS}/client/node_modules/@openclaw/gateway-client/dist/index.mjs`)
);

function raw(pem) {
  return createPublicKey(pem).export({ type: "spki", format: "der" }).subarray(-32);
}

function device() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const publicKeyPem = publicKey.export({ type: "spki", format: "pem" });
  const privateKeyPem = privateKey.export({ type: "pkcs8", format: "pem" });
  const deviceId = createHash("sha256").update(raw(publicKeyPem)).digest("hex");
  return { deviceId, publicKeyPem, privateKeyPem };
}

const hostDeps = {
  signDevicePayload: (pem, payload) => sign(null, Buffer.from(payload), pem).toString("base64url"),
  publicKeyRawBase64UrlFromPem: (pem) => raw(pem).toString("base64url"),
};

function login(options) {
  return new Promise((resolve, reject) => {
    const gateway = new GatewayClient({
      url,
      token,
      minProtocol: 4,
      maxProtocol: 4,
      hostDeps,
      onHelloOk: (hello) => resolve({ gateway, hello }),
      onConnectError: (error) => {
        reject(error);
        gateway.stop();
      },
      ...options,
    });
    gateway.start();
  });
}

const replies = {};
async function ask({ gateway }, method, params, name = method) {
  const reply = await gateway.request(method, params).catch((error) => ({ refused: error.message }));
  replies[name] = reply;
  return reply ?? {};
}

/** The client keeps the first word of a connection to itself. */
function challenge() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.onerror = () => reject(new Error("no challenge"));
    socket.onmessage = ({ data }) => {
      resolve(JSON.parse(data).payload);
      socket.close();
    };
  });
}

const events = { "connect.challenge": await challenge() };
const waiting = new Map();
/** Keeps the first payload of each event; where one says how something ended, of each end. */
function hear({ event, payload }) {
  const end = payload?.decision ?? "";
  events[end ? `${event} ${end}` : event] ??= payload;
  waiting.get(event)?.(payload);
}
const next = (event) => new Promise((resolve) => waiting.set(event, resolve));
const owner = {
  clientName: "cli",
  mode: "cli",
  caps: ["exec-approvals"],
  scopes: ["operator.admin", "operator.approvals", "operator.pairing"],
};
const admin = await login({ ...owner, onEvent: hear });

for (const method of ["status", "gateway.identity.get", "last-heartbeat", "voicewake.get", "voicewake.routing.get", "users.self"]) {
  await ask(admin, method, {});
}
await ask(admin, "voicewake.set", { triggers: ["claw"] });
await ask(admin, "system-event", { text: "a word" });
const config = await ask(admin, "config.get", {});
await ask(admin, "config.patch", { raw: "{}", baseHash: config.hash });
const written = next("config.changed");
const remote = { ...config.parsed.gateway, remote: { sshTarget: "box" } };
const whole = JSON.stringify({ ...config.parsed, gateway: remote });
const { hash } = await ask(admin, "config.set", { raw: whole, baseHash: config.hash });
await written;
await ask(admin, "config.apply", { raw: whole, baseHash: hash, note: "why" });

// A device asks, is turned down, asks again, and is forgotten in the end.
const asker = {
  deviceIdentity: device(),
  clientName: "openclaw-tui",
  mode: "ui",
  scopes: ["operator.read"],
};
const { deviceId } = asker.deviceIdentity;
async function requests(who) {
  const refused = await login(who).catch((error) => error);
  if (!refused.details?.requestId) throw new Error(`it did not ask: ${refused.message}`);
  return { requestId: refused.details.requestId };
}
await ask(admin, "device.pair.reject", await requests(asker));
await ask(admin, "device.pair.approve", await requests(asker));
(await login(asker)).gateway.stop();
await requests({ ...asker, deviceIdentity: device() });
await ask(admin, "device.pair.list", {});
await ask(admin, "device.pair.rename", { deviceId, label: "Desk" });
await ask(admin, "device.token.revoke", { deviceId, role: "operator" });
await ask(admin, "device.pair.remove", { deviceId });

// A node, from its first word to its end.
let answers = () => {};
const host = {
  deviceIdentity: device(),
  role: "node",
  scopes: [],
  clientName: "node-host",
  mode: "node",
  platform: "linux",
  deviceFamily: "Linux",
  caps: ["system"],
  commands: ["system.run", "system.which"],
  permissions: { accessibility: true },
  onEvent(event) {
    hear(event);
    if (event.event === "node.invoke.request") answers(event.payload);
  },
};
const nodeId = host.deviceIdentity.deviceId;
const offered = next("node.pair.requested");
await admin.gateway.request("device.pair.approve", await requests(host));
let node = await login(host);
await ask(admin, "node.pair.reject", { requestId: (await offered).requestId });
node.gateway.stop();
const again = next("node.pair.requested");
node = await login(host);
const offer = await again;
await ask(admin, "node.pair.list", {});
await ask(admin, "node.pair.approve", { requestId: offer.requestId });
await ask(admin, "node.rename", { nodeId, displayName: "Box" });
await ask(admin, "node.list", {});
await ask(admin, "node.describe", { nodeId });
await ask(node, "node.pending.pull", {});
await ask(node, "node.pending.ack", { ids: ["none"] });
await ask(node, "node.pluginTools.update", { tools: [] });
await ask(node, "node.skills.update", { skills: [] });
const capacity = { total: 2, available: 1 };
await ask(node, "node.runnerInventory.update", {
  protocolFeatures: ["node-worker-supervisor-v6"],
  workerHost: { enabled: true, capacity },
});
for (const [event, payload] of [
  ["node.host.stats", { cpuCount: 2, loadAverage: [1, 1, 1], memoryTotalBytes: 2, memoryFreeBytes: 1 }],
  ["node.presence.activity", { idleSeconds: 1 }],
]) {
  await node.gateway.request("node.event", { event, payloadJSON: JSON.stringify(payload) });
}
const answered = new Promise((resolve) => {
  answers = async ({ id }) => {
    await ask(node, "node.invoke.progress", { invokeId: id, nodeId, seq: 0, chunk: "half" });
    resolve(await ask(node, "node.invoke.result", { id, nodeId, ok: true, payloadJSON: "{}" }));
  };
});
const which = { nodeId, command: "system.which", params: { bins: ["sh"] }, idempotencyKey: randomUUID() };
await ask(admin, "node.invoke", which);
await answered;
// Nobody answers this one, so its node is told to stop.
answers = () => {};
const stopped = next("node.invoke.cancel");
const unanswered = { ...which, timeoutMs: 500, idempotencyKey: randomUUID() };
await admin.gateway.request("node.invoke", unanswered).catch(() => {});
await stopped;

const plan = { argv: ["/bin/id"], cwd: null, commandText: "/bin/id", agentId: null, sessionKey: null };
const id = randomUUID();
// Whoever asks is not asked.
const requester = await login(owner);
await ask(requester, "exec.approval.request", { id, host: "node", nodeId, systemRunPlan: plan, twoPhase: true });
await ask(admin, "exec.approval.get", { id });
await ask(admin, "exec.approval.list", {});
const waited = ask(admin, "exec.approval.waitDecision", { id });
await ask(admin, "exec.approval.resolve", { id, decision: "allow-once" });
await waited;
await ask(admin, "node.pair.remove", { nodeId });
node.gateway.stop();

console.log(JSON.stringify({ replies, events }));
console.log("done");
process.exit(0);
