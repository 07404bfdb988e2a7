// Sends events with the SDKs of Segment and RudderStack, as an application
// would: node send.mjs URL WRITE_KEY COUNT USER_ID
//
// Each SDK sends COUNT events of the customer (see events.mjs): an identify first,
// then every tenth a page and all others orders. Only the URL of the collector
// differs from the SDK's defaults. The exit code is 0 if the SDKs reported every
// event as delivered.
import { Analytics as Segment } from '@segment/analytics-node';
import RudderStack from '@rudderstack/rudder-sdk-node';
import { eventAt } from './events.mjs';

const [url, writeKey, countText, userId] = process.argv.slice(2);
const count = Number(countText);
if (!userId || !Number.isInteger(count) || count < 1) {
  console.error('usage: node send.mjs URL WRITE_KEY COUNT USER_ID');
  process.exit(2);
}

// send passes the events to an SDK and counts the delivered ones.
function send(sdk, client) {
  let delivered = 0;
  const calls = [];
  for (let i = 0; i < count; i++) {
    const { type, ...message } = eventAt(sdk, i, userId);
    calls.push(new Promise((done) => {
      client[type](message, (err) => {
        if (err) console.error(`${sdk}: event ${i}: ${err.message ?? err}`);
        else delivered++;
        done();
      });
    }));
  }
  return { all: Promise.all(calls), delivered: () => delivered };
}

async function segment() {
  const client = new Segment({ writeKey, host: url });
  client.on('error', (err) => console.error(`segment: ${err.code}: ${err.reason}`));
  const sent = send('segment', client);
  await client.closeAndFlush();
  await sent.all;
  return sent.delivered();
}

async function rudderstack() {
  const client = new RudderStack(writeKey, { dataPlaneUrl: url, flushInterval: 100, logLevel: 'error' });
  const sent = send('rudderstack', client);
  // A flush sends one batch; the SDK's timer sends the rest.
  await Promise.all([client.flush(), sent.all]);
  return sent.delivered();
}

const started = performance.now();
const [bySegment, byRudderStack] = await Promise.all([segment(), rudderstack()]);
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`delivered in ${seconds} s: ${bySegment} of ${count} by Segment's SDK, ${byRudderStack} of ${count} by RudderStack's`);
process.exit(bySegment === count && byRudderStack === count ? 0 : 1);
