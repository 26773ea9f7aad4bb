// Calls, by the reference client and against any gateway, the methods whose replies the published
// schema does not describe, and says what each was answered: one object, a method each. The gateway
// has `gateway.nodes.pairing.autoApproveLocal: false`, so that every device asks.
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

const heard = new Map();
const next = (event) => new Promise((resolve) => heard.set(event, resolve));
const admin = await login({
  clientName: "cli",
  mode: "cli",
  caps: ["exec-approvals"],
  scopes: ["operator.admin", "operator.approvals", "operator.pairing"],
  onEvent: (event) => heard.get(event.event)?.(event.payload),
});

for (const method of ["status", "gateway.identity.get", "last-heartbeat", "voicewake.get", "voicewake.routing.get"]) {
  await ask(admin, method, {});
}
await ask(admin, "voicewake.set", { triggers: ["claw"] });
await ask(admin, "system-event", { text: "a word" });
const config = await ask(admin, "config.get", {});
await ask(admin, "config.patch", { raw: "{}", baseHash: config.hash });

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
  onEvent: ({ event, payload }) => event === "node.invoke.request" && answers(payload),
};
const nodeId = host.deviceIdentity.deviceId;
const offered = next("node.pair.requested");
await admin.gateway.request("device.pair.approve", await requests(host));
const node = await login(host);
const offer = await offered;
await ask(admin, "node.pair.list", {});
await ask(admin, "node.pair.approve", { requestId: offer.requestId });
await ask(admin, "node.rename", { nodeId, displayName: "Box" });
await ask(admin, "node.list", {});
await ask(admin, "node.describe", { nodeId });
await ask(node, "node.pending.pull", {});
await ask(node, "node.pending.ack", { ids: ["none"] });
await ask(node, "node.pluginTools.update", { tools: [] });
await ask(node, "node.skills.update", { skills: [] });
const answered = new Promise((resolve) => {
  answers = async ({ id }) => {
    await ask(node, "node.invoke.progress", { invokeId: id, nodeId, seq: 0, chunk: "half" });
    resolve(await ask(node, "node.invoke.result", { id, nodeId, ok: true, payloadJSON: "{}" }));
  };
});
const which = { nodeId, command: "system.which", params: { bins: ["sh"] }, idempotencyKey: randomUUID() };
await ask(admin, "node.invoke", which);
await answered;

const plan = { argv: ["/bin/id"], cwd: null, commandText: "/bin/id", agentId: null, sessionKey: null };
const id = randomUUID();
await ask(admin, "exec.approval.request", { id, host: "node", nodeId, systemRunPlan: plan, twoPhase: true });
await ask(admin, "exec.approval.get", { id });
await ask(admin, "exec.approval.list", {});
const waited = ask(admin, "exec.approval.waitDecision", { id });
await ask(admin, "exec.approval.resolve", { id, decision: "allow-once" });
await waited;
await ask(admin, "node.pair.remove", { nodeId });
node.gateway.stop();

console.log(JSON.stringify(replies));
console.log("done");
process.exit(0);
