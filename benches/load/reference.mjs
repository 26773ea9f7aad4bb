// The reference client as a measure of the gateway at URL: one line of JSON with the time of each
// login, milliseconds, and with how many `health` calls a second were answered on one connection.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { PEERS, URL: url, TOKEN: token } = process.env;
const { GatewayClient } = await import(
  pathToFileURL(`${PEERS}/client/node_modules/@openclaw/gateway-client/dist/index.mjs`)
);
const IN_FLIGHT = 100;
const WARM_MS = 500;
const SPAN_MS = 2000;

/** Logs in; the client and how long it took. */
function login() {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const gateway = new GatewayClient({
      url,
      token,
      minProtocol: 4,
      maxProtocol: 4,
      scopes: ["operator.read"],
      onHelloOk: () => resolve({ gateway, took: performance.now() - began }),
      onConnectError: reject,
    });
    gateway.start();
  });
}

/** Asks for `health` until the time is up, one question after the other. */
async function ask(gateway, until) {
  let count = 0;
  while (performance.now() < until) {
    await gateway.request("health", {});
    count += 1;
  }
  return count;
}

const logins = [];
for (let index = 0; index < 120; index += 1) {
  const { gateway, took } = await login();
  await gateway.stopAndWait();
  if (index >= 20) logins.push(took);
}
const { gateway } = await login();
const all = (until) => Promise.all(Array.from({ length: IN_FLIGHT }, () => ask(gateway, until)));
await all(performance.now() + WARM_MS);
const began = performance.now();
const counts = await all(began + SPAN_MS);
const rate = (counts.reduce((sum, count) => sum + count, 0) * 1000) / (performance.now() - began);
gateway.stop();
console.log(JSON.stringify({ logins, rate }));
