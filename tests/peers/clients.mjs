// The reference client against our gateway: logs in with and without a device, calls what is
// listed, holds the payloads against the published schema, and waits for the gateway's end.
import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { PEERS, URL: url, TOKEN: token, METHODS, CLIENT = "client" } = process.env;
const client = createRequire(`${PEERS}/client/package.json`);
const openclaw = createRequire(`${PEERS}/openclaw/package.json`);
const { GatewayClient } = await import(
  pathToFileURL(`${PEERS}/${CLIENT}/node_modules/@openclaw/gateway-client/dist/index.mjs`)
);
const { GatewayScopeUpgrade } = await import(
  pathToFileURL(`${PEERS}/client/node_modules/@openclaw/gateway-client/dist/scope-upgrade.mjs`)
);
const schema = JSON.parse(
  readFileSync(`${PEERS}/client/node_modules/@openclaw/gateway-protocol/protocol.schema.json`),
);
const Ajv = openclaw("ajv").default ?? openclaw("ajv");
const ajv = new Ajv({ strict: false, allErrors: true });

function hold(name, part, value) {
  if (!ajv.validate(part, value)) {
    throw new Error(`${name} is not as published: ${ajv.errorsText()}\n${JSON.stringify(value)}`);
  }
}

const HelloOk = schema.definitions.HelloOk;
const Health = HelloOk.properties.snapshot.properties.health;
const Presence = { type: "array", items: schema.definitions.PresenceEntry };

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

/** Logs in and resolves with the client, its `hello-ok` and what happens to it later. */
function login(options) {
  return new Promise((resolve, reject) => {
    const later = { events: [], closed: Promise.withResolvers() };
    const gateway = new GatewayClient({
      url,
      token,
      minProtocol: 4,
      maxProtocol: 4,
      scopes: ["operator.read"],
      onHelloOk: (hello) => resolve({ gateway, hello, later }),
      onConnectError: reject,
      onEvent: (event) => later.events.push(event),
      onClose: (code, reason) => later.closed.resolve({ code, reason }),
      ...options,
    });
    gateway.start();
  });
}

async function converse({ gateway, hello }) {
  hold("hello-ok", HelloOk, hello);
  for (const method of hello.features.methods) {
    if (!schema.methods[method]) throw new Error(`${method} is not a published method`);
  }
  if (hello.features.methods.join() !== METHODS) throw new Error(`methods: ${hello.features.methods}`);
  hold("health", Health, await gateway.request("health", {}));
  hold("presence", Presence, await gateway.request("system-presence", {}));
  const status = await gateway.request("status", {});
  if (typeof status.runtimeVersion !== "string") throw new Error(JSON.stringify(status));
  const identity = await gateway.request("gateway.identity.get", {});
  const id = createHash("sha256").update(Buffer.from(identity.publicKey, "base64url")).digest("hex");
  if (id !== identity.deviceId) throw new Error(JSON.stringify(identity));
  const many = Array.from({ length: 500 }, () => gateway.request("health", {}));
  if (!(await Promise.all(many)).every((health) => health.ok)) throw new Error("health");
  const refused = await gateway.request("no.such", {}).catch((error) => error);
  if (!/unknown method/.test(refused.message)) throw new Error(`unknown: ${refused.message}`);
}

const plain = await login({});
await converse(plain);
plain.gateway.stop();

const wrong = await login({ token: "wrong" }).catch((error) => error);
if (wrong.details?.code !== "AUTH_TOKEN_MISMATCH") throw new Error(`wrong token: ${wrong.message}`);

const paired = await login({
  deviceIdentity: device(),
  hostDeps,
  clientName: "openclaw-tui",
  mode: "ui",
  instanceId: "one",
});
await converse(paired);
const twin = device();
const upgraded = await login({ deviceIdentity: twin, hostDeps });
const presence = await paired.gateway.request("system-presence", {});
if (presence.length !== 2 || !presence[1].deviceId) throw new Error(JSON.stringify(presence));

// The device asks for more while it is in, somebody approves, and the next login holds it.
const owner = await login({ scopes: ["operator.admin"] });
const scopes = ["operator.read", "operator.write"];
let kept;
const upgrade = new GatewayScopeUpgrade({
  request: (method, params, options) => upgraded.gateway.request(method, params, options),
  tokenStore: { store: async (entry) => (kept = entry) },
  reconnect: () => upgraded.gateway.stop(),
});
const outcome = await upgrade.requestScopeUpgrade({
  binding: { clientId: "gateway-client", deviceId: twin.deviceId, role: "operator" },
  scopes,
  onPending: (requestId) => owner.gateway.request("device.pair.approve", { requestId }),
});
if (outcome.status !== "approved" || !kept) throw new Error(JSON.stringify(outcome));
const more = await login({
  token: undefined,
  deviceToken: kept.token,
  deviceIdentity: twin,
  hostDeps,
  scopes,
});
if (!more.hello.auth.scopes.includes("operator.write")) throw new Error(JSON.stringify(more.hello));
more.gateway.stop();
owner.gateway.stop();

console.log("ready");
const { code } = await paired.later.closed.promise;
const shutdown = paired.later.events.find((event) => event.event === "shutdown");
hold("shutdown", schema.definitions.ShutdownEvent, shutdown?.payload);
hold("event", schema.definitions.EventFrame, shutdown);
if (code !== 1012) throw new Error(`closed with ${code}`);
console.log("done");
process.exit(0);
