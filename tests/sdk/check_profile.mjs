// Checks that a profile counts each event of the SDKs once:
// node check_profile.mjs PROFILE COUNT USER_ID
import assert from 'node:assert/strict';
import { SDKS, eventAt } from './events.mjs';

const [text, countText, userId] = process.argv.slice(2);
const profile = JSON.parse(text);
const sent = SDKS.flatMap((sdk) => Array.from({ length: Number(countText) }, (_, i) => eventAt(sdk, i, userId)));
const orders = sent.filter((e) => e.event === 'Order Completed');
const cents = orders.reduce((sum, e) => sum + Math.round((e.properties.total ?? 0) * 100), 0);

assert.equal(profile.id, userId);
assert.equal(profile.features.orders, orders.length, 'orders');
assert.equal(profile.features.page_views_24h, sent.filter((e) => e.type === 'page').length, 'pages');
assert.equal(Math.round(profile.features.revenue * 100), cents, 'revenue');
console.log(`${sent.length} events of ${SDKS.length} SDKs are counted exactly: ${orders.length} orders, ${profile.features.page_views_24h} pages`);
