// The reference client as a node on versions 3 and 4, and as the operator who pairs it, approves what
// it offers, and has a command run there once that was decided.
import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { pathToFileURL } from "node:url";

const { PEERS, URL: url, TOKEN: token, CLIENT = "client" } = process.env;
const { GatewayClient } = await import(
  pathToFileURL(`${PEERS}/${CLIENT}/node_modules/@openclaw/gateway-client/dist/index.mjs`)
);

function raw(pem) {
  return createPublicKey(pem).export({ type: "spki", format: "der" }).subarray(-32);
}

function device() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const publicKeyPem = publicKey.export({ type: "spki", format: "pem" });
  const privateKeyPem = privateKey.export({ type: "pkcs8", format: "pem" });
  return { deviceId: createHash("sha256").update(raw(publicKeyPem)).digest("hex"), publicKeyPem, privateKeyPem };
}

const hostDeps = {
  signDevicePayload: (pem, payload) => sign(null, Buffer.from(payload), pem).toString("base64url"),
  publicKeyRawBase64UrlFromPem: (pem) => raw(pem).toString("base64url"),
};

/** Resolves with the client and its `hello-ok`, or rejects with why it was not let in. */
function login(options) {
  return new Promise((resolve, reject) => {
    const gateway = new GatewayClient({
      url,
      token,
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

function check(name, is, should) {
  if (JSON.stringify(is) !== JSON.stringify(should)) {
    throw new Error(`${name}: ${JSON.stringify(is)}, not ${JSON.stringify(should)}`);
  }
}

const waiters = new Map();
function heard(event) {
  return new Promise((resolve) => waiters.set(event, resolve));
}
const operator = await login({
  deviceIdentity: device(),
  clientName: "openclaw-tui",
  mode: "ui",
  minProtocol: 4,
  maxProtocol: 4,
  scopes: ["operator.admin", "operator.approvals", "operator.pairing"],
  onEvent: (event) => waiters.get(event.event)?.(event.payload),
});
const ask = (method, params) => operator.gateway.request(method, params);

for (const versions of [{ minProtocol: 3, maxProtocol: 4 }, { minProtocol: 3, maxProtocol: 3 }]) {
  const ran = [];
  const node = {
    deviceIdentity: device(),
    role: "node",
    scopes: [],
    clientName: "node-host",
    mode: "node",
    platform: "linux",
    deviceFamily: "Linux",
    caps: ["system"],
    commands: ["system.run", "system.which"],
    ...versions,
  };
  const asked = heard("device.pair.requested");
  const refused = await login(node).catch((error) => error);
  check("a stranger", refused.details?.code, "PAIRING_REQUIRED");
  const { requestId } = await asked;
  check("the request", requestId, refused.details.requestId);
  await ask("device.pair.approve", { requestId });
  const offered = heard("node.pair.requested");
  const { gateway, hello } = await login({
    ...node,
    onEvent: ({ event, payload }) => {
      if (event !== "node.invoke.request") return;
      const params = JSON.parse(payload.paramsJSON);
      ran.push(params);
      const answer = { id: payload.id, nodeId: payload.nodeId, ok: true, payloadJSON: JSON.stringify({ did: params }) };
      void gateway.request("node.invoke.result", answer);
    },
  });
  check("its role", hello.auth.role, "node");
  if (!hello.auth.deviceToken) throw new Error("no token for the next time");
  const offer = await offered;
  const nodeId = node.deviceIdentity.deviceId;
  await ask("node.pair.approve", { requestId: offer.requestId });
  const described = await ask("node.describe", { nodeId });
  // Version 3 names no device family: what the machine is follows from its system.
  check("its commands", described.commands, ["system.run", "system.which"]);
  const key = () => crypto.randomUUID();
  const invoke = (command, params) => ask("node.invoke", { nodeId, command, params, idempotencyKey: key() });
  check("which", (await invoke("system.which", { bins: ["sh"] })).payload, { did: { bins: ["sh"] } });
  const plan = { argv: ["/bin/id", "-u"], cwd: null, commandText: "/bin/id -u", agentId: null, sessionKey: null };
  const runId = crypto.randomUUID();
  const run = { command: plan.argv, runId, approved: true, approvalDecision: "allow-once" };
  const early = await invoke("system.run", run).catch((error) => error);
  check("before anybody decided", early.details?.code, "UNKNOWN_APPROVAL_ID");
  const wanted = heard("exec.approval.requested");
  const pending = ask("exec.approval.request", { id: runId, host: "node", nodeId, systemRunPlan: plan });
  check("what is shown", (await wanted).request.command, "/bin/id -u");
  await ask("exec.approval.resolve", { id: runId, decision: "allow-once" });
  check("the decision", (await pending).decision, "allow-once");
  const other = await invoke("system.run", { ...run, command: ["/bin/rm", "-rf"] }).catch((error) => error);
  check("another command", other.details?.code, "APPROVAL_REQUEST_MISMATCH");
  await invoke("system.run", run);
  check("what ran", ran.at(-1).command, plan.argv);
  const again = await invoke("system.run", run).catch((error) => error);
  check("a second time", again.details?.code, "APPROVAL_REQUIRED");
  gateway.stop();
}
console.log("done");
process.exit(0);
