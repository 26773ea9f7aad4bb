// Has three people ask to be let in by a channel of the reference gateway, whose state directory is
// STATE: by the means that its channels have for that.
import { pathToFileURL } from "node:url";

const { PEERS, STATE } = process.env;
process.env.OPENCLAW_STATE_DIR = STATE;
process.env.HOME = STATE;
const runtime = `${PEERS}/openclaw/node_modules/openclaw/dist/plugin-sdk/conversation-runtime.js`;
const { upsertChannelPairingRequest } = await import(pathToFileURL(runtime));
for (const [accountId, id] of [["default", "4242"], ["default", "777"], ["work", "9"]]) {
  const meta = { username: `user-${id}` };
  const { created, code } = await upsertChannelPairingRequest({ channel: "telegram", id, accountId, meta });
  if (!created) throw new Error(`${id} may not ask`);
  console.log(`code of ${id}: ${code}.`);
}
console.log("done");
process.exit(0);
