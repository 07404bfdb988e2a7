// Checks that the collector wrote exactly the events that the SDKs sent:
// node check.mjs OUTPUT_DIR COUNT USER_ID SOURCE
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { SDKS, eventAt } from './events.mjs';

const [dir, countText, userId, source] = process.argv.slice(2);
const count = Number(countText);

const deadLetters = `${dir}/dead_letters.jsonl`;
assert.ok(!existsSync(deadLetters) || readFileSync(deadLetters, 'utf8') === '', `no dead letters, see ${deadLetters}`);

const events = readFileSync(`${dir}/events.jsonl`, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
assert.equal(events.length, SDKS.length * count, 'number of events');
assert.equal(new Set(events.map((e) => e.messageId)).size, events.length, 'distinct messageIds');

const libraries = { segment: '@segment/analytics-node', rudderstack: 'analytics-node' };
const sdkOf = (e) => e.properties?.sdk ?? e.traits?.plan;
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
for (const sdk of SDKS) {
  const own = events.filter((e) => sdkOf(e) === sdk).sort((a, b) => (a.properties?.n ?? 0) - (b.properties?.n ?? 0));
  assert.equal(own.length, count, `events of ${sdk}`);
  own.forEach((got, i) => {
    const want = eventAt(sdk, i, userId);
    for (const [name, value] of Object.entries(want)) {
      // Page events of Segment's SDK carry their name in the properties too.
      const seen = name === 'properties' ? Object.fromEntries(Object.keys(value).map((k) => [k, got.properties[k]])) : got[name];
      assert.deepEqual(seen, value, `${name} of event ${i} of ${sdk}`);
    }
    for (const name of ['timestamp', 'originalTimestamp', 'sentAt', 'receivedAt']) {
      assert.match(got[name], time, `${name} of event ${i} of ${sdk}`);
    }
    assert.ok(got.timestamp <= got.receivedAt, 'an event happened before it was received');
    assert.equal(got.source, source);
    assert.equal(got.context.ip, '127.0.0.1');
    assert.equal(got.context.library.name, libraries[sdk]);
    assert.ok(!('writeKey' in got), 'the collector removes the write key');
  });
}
console.log(`${events.length} events, each exactly once`);
