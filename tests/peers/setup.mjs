// The reference client as a telephone that is set up by a code, and as the owner who shows the code:
// the telephone becomes a node and an operator by it, once, and its owner hears of that.
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

const owner = await login({
  token,
  deviceIdentity: device(),
  clientName: "openclaw-tui",
  mode: "ui",
  scopes: ["operator.admin"],
  onEvent: ({ event, payload }) => waiters.get(event)?.(payload),
});
const ask = (method, params) => owner.gateway.request(method, params);
const phones = {
  "openclaw-ios": { platform: "iOS 19.1", deviceFamily: "iPhone" },
  "openclaw-android": { platform: "android", deviceFamily: "Android" },
};
const limited = ["operator.approvals", "operator.questions", "operator.read", "operator.talk.secrets", "operator.write"];
const shown = process.env.SHOW ? (...words) => console.log(...words.map((it) => JSON.stringify(it, null, 1))) : () => {};

for (const [clientName, machine] of Object.entries(phones)) {
  for (const bootstrapProfile of ["limited", undefined]) {
    const scopes = bootstrapProfile ? limited : ["operator.admin", ...limited];
    const access = bootstrapProfile ?? "full";
    const issued = await ask("device.pair.setupCode", { publicUrl: url, bootstrapProfile });
    shown("issued", { ...issued, qrDataUrl: issued.qrDataUrl?.slice(0, 40) });
    check("what it gives", [issued.access, issued.accessDowngraded], [access, undefined]);
    if (!issued.qrDataUrl?.startsWith("data:image/png;base64,")) throw new Error("no picture");
    const { bootstrapToken, url: where } = JSON.parse(Buffer.from(issued.setupCode, "base64url"));
    check("where", where, issued.gatewayUrl);
    const phone = {
      deviceIdentity: device(),
      bootstrapToken,
      clientName,
      mode: "node",
      role: "node",
      scopes: [],
      caps: ["device"],
      commands: ["device.info"],
      ...machine,
    };
    // A code makes nothing of what is no telephone, nor of one that would only be an operator.
    const stranger = { ...phone, deviceIdentity: device() };
    if (access === "limited") {
      const more = { ...stranger, role: "operator", scopes: ["operator.admin"] };
      const nobody = await login(more).catch((error) => error);
      check("more than it gives", nobody.details?.code, "AUTH_BOOTSTRAP_TOKEN_INVALID");
    }
    const done = heard("device.pair.setup.completed");
    const { gateway, hello } = await login(phone);
    shown("hello", hello.auth);
    check("its role", [hello.auth.role, hello.auth.scopes], ["node", []]);
    const [given, ...more] = hello.auth.deviceTokens;
    check("what it is given", [given.role, given.scopes.toSorted(), more], ["operator", scopes.toSorted(), []]);
    if (!(given.issuedAtMs > 0)) throw new Error("no time");
    const outcome = await done;
    shown("completed", outcome);
    check("who was told", [outcome.setupId, outcome.deviceId, outcome.access], [issued.setupId, phone.deviceIdentity.deviceId, access]);
    check("what is known", (await ask("device.pair.setupStatus", { setupId: issued.setupId })).completion, outcome);
    // Another one gets nothing for the same code.
    const late = await login({ ...phone, deviceIdentity: device() }).catch((error) => error);
    check("a second time", late.details?.code, "AUTH_BOOTSTRAP_TOKEN_INVALID");
    // With what it was given it is an operator, and no more than that.
    const { bootstrapToken: _, ...own } = phone;
    const person = { ...own, role: "operator", mode: "ui", deviceToken: given.deviceToken, caps: [], commands: [] };
    const operator = await login({ ...person, scopes: given.scopes });
    shown("operator", operator.hello.auth);
    check("as an operator", operator.hello.auth.scopes.toSorted(), scopes.toSorted());
    check("what it reads", (await operator.gateway.request("health", {})).ok, true);
    const denied = await operator.gateway.request("config.set", {}).catch((error) => error);
    check("what it may not", denied.message?.includes("missing scope"), access === "limited");
    operator.gateway.stop();
    gateway.stop();
    const again = await login({ ...own, deviceToken: hello.auth.deviceToken });
    check("the next time", again.hello.auth.role, "node");
    again.gateway.stop();
  }
}
console.log("done");
process.exit(0);
