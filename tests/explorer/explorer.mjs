// Tests the profile explorer in a browser. See run.sh.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { CHROMIUM, SHOTS, COLLECTOR_ADDRESS, OPEN_ADDRESS, CLOSED_ADDRESS } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const open = `http://${OPEN_ADDRESS}/`;
const closed = `http://${CLOSED_ADDRESS}/`;

// A customer with a history and with hostile traits.
const now = Date.now();
const ago = (days) => new Date(now - days * 86400e3).toISOString();
const attack = `<img src=x onerror="window.hacked=1"><script>window.hacked=1;parent.hacked=1</script>`;
const order = (n, days, total) => ({
  type: "track", event: "Order Completed", userId: "ada", messageId: `o${n}`, timestamp: ago(days),
  properties: { order_id: `o-${n}`, total, currency: "EUR", products: [{ product_id: "p-1", name: "Hat", category: "hats", price: total, quantity: 1 }] },
});
await collect([
  { type: "identify", userId: "ada", messageId: "i1", timestamp: ago(50), traits: { firstName: "Ada", email: "ada@example.com", country: "GB", bio: attack, birthday: "1815-12-10" } },
  order(1, 40, 300), order(2, 10, 150.5), order(3, 2, 99.25),
  ...[3, 2, 1].map((d) => ({ type: "track", event: "Product Viewed", userId: "ada", messageId: `v${d}`, timestamp: ago(d), properties: { product_id: `p-${d}`, name: "Hat", category: "hats", price: 19.9 } })),
  ...["eve", "eva"].map((userId) => ({ type: "identify", userId, messageId: "i-" + userId, timestamp: ago(1), traits: { email: "family@example.com" } })),
  { type: "page", userId: "ada", messageId: "p1", timestamp: ago(0.1), properties: { url: "https://shop.example.com/" } },
]);

async function collect(batch) {
  const response = await fetch(`http://${COLLECTOR_ADDRESS}/v1/batch`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: "Basic " + Buffer.from("demo:").toString("base64") },
    body: JSON.stringify({ batch, sentAt: new Date().toISOString() }),
  });
  assert.equal(response.status, 200, await response.text());
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

let checks = 0;
const done = (what) => console.log(`ok ${++checks} ${what}`);

// visit opens a page, which must not log an error or send a request to another host.
async function visit(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, timezoneId: "Europe/Berlin", locale: "en-GB", ...options });
  const page = await context.newPage();
  const wrong = [];
  // Allowed messages: the policy blocks styles in content, which the page then applies
  // itself. Requests are checked below.
  page.expected = ["Applying inline style violates", "Executing inline event handler violates"];
  page.on("pageerror", (e) => wrong.push(`error: ${e}`));
  page.on("console", (m) => {
    if (m.type() === "error" && !page.expected.some((e) => m.text().includes(e))) wrong.push(`console: ${m.text()}`);
  });
  page.on("request", (r) => {
    if (!r.url().startsWith(address) && !r.url().startsWith("about:")) wrong.push(`asks for ${r.url()}`);
  });
  page.clean = () => assert.deepEqual(wrong, []);
  await page.goto(address);
  return page;
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => (await window.axe.run(document, { iframes: false })).violations
    .map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target + " " + n.failureSummary).join("; ")}`));
  assert.deepEqual(violations, [], what);
  done(`no accessibility violations: ${what}`);
}

const shot = (page, name) => page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
const text = (page, selector) => page.locator(selector).innerText();
const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());

async function find(page, id) {
  await page.keyboard.press("Escape");
  await page.fill("#id", id);
  await page.press("#id", "Enter");
}

async function featureValue(page, name) {
  return text(page, `details[data-name="${name}"] .value`);
}

// --- without tokens, on a desktop
{
  const page = await visit(open);
  const response = await page.request.get(open);
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  assert.equal(await page.title(), "Profile explorer");
  await shot(page, "desktop-light-empty");
  await accessible(page, "before anybody is looked for");

  await page.locator("h1").click();
  await page.keyboard.press("/");
  assert.equal(await focused(page), "id");
  await page.keyboard.type("ada");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#found:not([hidden])");
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Showing ada as of now"));
  done("a customer is found by keyboard alone, and it is said aloud");

  assert.match(await text(page, "#traits"), /firstName\s+Ada\s+web\s+/);
  assert.ok((await text(page, "#traits")).includes(attack));
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  done("traits have source and time, and markup in one is text");

  assert.equal(await featureValue(page, "orders"), "3");
  assert.equal(await featureValue(page, "orders_30d"), "2");
  assert.equal(await featureValue(page, "revenue"), "549.75");
  await page.locator('details[data-name="revenue"] summary').focus();
  await page.keyboard.press("Enter");
  const why = await text(page, 'details[data-name="revenue"] .why');
  assert.match(why, /sum of Order Completed, reading properties.total, since the beginning\./);
  assert.match(why, /3 events count:/);
  assert.match(why, /99\.25[\s\S]*150\.5[\s\S]*300/);
  done("a feature tells how it came to be");

  await page.click("text=−7 d");
  await page.waitForFunction(() => document.querySelector('details[data-name="orders"] .value').textContent === "2");
  assert.equal(await featureValue(page, "products_viewed_7d"), "0");
  assert.match(await text(page, 'details[data-name="revenue"] .why'), /2 events count:/, "what was open stays open");
  assert.equal(await page.getAttribute("#now", "aria-pressed"), "false");
  await page.goBack();
  await page.waitForFunction(() => document.querySelector('details[data-name="orders"] .value').textContent === "3");
  assert.equal(page.url(), open, "an id is in no address");
  done("features as of another time, and back");

  await page.fill("#filter", "revenue_9");
  assert.equal(await page.locator("#features details:visible").count(), 1);
  await page.fill("#filter", "");

  assert.equal(await page.locator("#events tr").count(), 8);
  assert.match(await text(page, "#events"), /page[\s\S]*Product Viewed[\s\S]*Order Completed/);
  done("recent events, the latest first");

  await page.selectOption("#block", "loyalty_banner");
  const frame = page.frameLocator("#content");
  await frame.getByText("Hello Ada, ").or(frame.getByText("Gold for you, Ada")).waitFor();
  await page.selectOption("#render-for", { label: "Sample: a gold member" });
  await frame.getByText("€1,234.50").waitFor();
  await page.selectOption("#block", "birthday_greeting");
  await page.waitForFunction(() => document.getElementById("content-text").textContent.includes("Ada"));
  await page.selectOption("#block", "last_viewed");
  await frame.getByText("Still thinking about it?").waitFor();
  done("content for the customer and for samples");
  await page.selectOption("#block", "hostile");
  await frame.getByText("Styled by a sheet").waitFor();
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await frame.locator("#styled").evaluate((e) => getComputedStyle(e).color), "rgb(1, 2, 3)");
  assert.equal(await frame.locator("#inline").evaluate((e) => getComputedStyle(e).color), "rgb(4, 5, 6)");
  assert.equal(await frame.locator("body").evaluate(() => window.hacked), undefined);
  done("scripts in content do not run, its styles apply");
  await page.selectOption("#block", "loyalty_banner");

  await page.waitForFunction(() => document.querySelectorAll("#activity dd").length === 4 && /\/s/.test(document.getElementById("activity").textContent));
  const taken = Number((await page.locator("#activity dd").first().innerText()).split(/\s/)[0].replace(/,/g, ""));
  assert.ok(taken > 7, `events taken in: ${taken}`);
  assert.match(await text(page, "#requests"), /customer\s+\d+/);
  assert.equal(await page.getAttribute("#state", "data-state"), "up");
  done("live counts");

  await accessible(page, "a customer, light");
  await page.locator("h1").click();
  await page.evaluate(() => document.activeElement.blur());
  await shot(page, "desktop-light");
  page.clean();

  // Tab reaches every control in reading order, with a visible focus.
  await page.reload(); // the state of the tab stays
  await page.waitForSelector("#found:not([hidden])");
  await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
  const order = [];
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      const box = e.getBoundingClientRect();
      return { name: e.id || e.getAttribute("aria-label") || e.closest("details")?.dataset.name || e.textContent.trim().slice(0, 20), y: box.top + scrollY, outline: getComputedStyle(e).outlineStyle, body: e === document.body };
    });
    if (at.body) break;
    if (at.name !== "content") assert.notEqual(at.outline, "none", `${at.name} has no visible focus`);
    order.push(at.name);
  }
  assert.equal(order[0], "Skip to the profile");
  for (const name of ["id", "as-of", "−7 d, a week earlier", "now", "filter", "orders", "block", "render-for", "Requests by route"]) assert.ok(order.includes(name), `${name} is reached by Tab: ${order}`);
  assert.deepEqual([...order].sort((a, b) => order.indexOf(a) - order.indexOf(b)), order);
  assert.ok(order.indexOf("id") < order.indexOf("as-of") && order.indexOf("as-of") < order.indexOf("filter") && order.indexOf("filter") < order.indexOf("block"));
  done("everything is reached by Tab with a visible focus");

  page.expected.push("404");
  await find(page, "nobody at all");
  await page.waitForFunction(() => document.getElementById("status").textContent === "No customer has this id or email.");
  assert.ok(await page.isHidden("#found"));
  await find(page, "a/b?c#d%");
  await page.waitForFunction(() => document.getElementById("status").textContent === "No customer has this id or email.");
  done("nobody is found, and it is said");

  // The field for an id also accepts an address.
  await find(page, "Ada@Example.com");
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Showing ada, found by email, as of now"));
  assert.match(await text(page, "#facts"), /Found by\s+email: Ada@Example.com/);
  await page.selectOption("#block", "loyalty_banner");
  await page.frameLocator("#content").getByText("Ada").first().waitFor();
  await page.click("text=−7 d");
  await page.waitForFunction(() => document.querySelector('details[data-name="orders"] .value').textContent === "2");
  assert.equal(page.url(), open, "an address is in no address");
  await page.goBack();
  await page.waitForFunction(() => document.querySelector('details[data-name="orders"] .value').textContent === "3");
  await accessible(page, "a customer found by e-mail address");
  await shot(page, "desktop-light-email");
  page.expected.push("409");
  await find(page, "family@example.com");
  await page.waitForFunction(() => document.getElementById("status").textContent === "Several customers have this value: search by id.");
  assert.ok(await page.isHidden("#found"));
  page.clean();
  done("a customer is found by e-mail address, and nobody by one that several have");
  await page.context().close();
}

// --- dark, and on a phone
for (const [name, options] of Object.entries({
  "desktop-dark": { colorScheme: "dark" },
  "phone-light": { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
  "phone-dark": { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme: "dark" },
})) {
  const page = await visit(open, options);
  await find(page, "ada");
  await page.waitForSelector("#found:not([hidden])");
  await page.selectOption("#block", "loyalty_banner");
  await page.frameLocator("#content").getByText("Ada").waitFor();
  await page.locator('details[data-name="revenue_90d"] summary').click();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.equal(wide, false, `${name} scrolls sideways`);
  const cut = await page.locator("#process table").evaluate((t) => t.scrollWidth > t.parentElement.clientWidth);
  assert.equal(cut, false, `${name} cuts off how long requests take`);
  await accessible(page, name);
  await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
  await shot(page, name);
  page.clean();
  await page.context().close();
}

// --- with tokens
{
  const page = await visit(closed);
  page.expected.push("401", "403", "404");
  await page.waitForSelector("#token-form:not([hidden])");
  await accessible(page, "a token is asked for");
  await shot(page, "desktop-light-token");
  await page.fill("#token", "wrong");
  await page.press("#token", "Enter");
  await find(page, "ada");
  await page.waitForFunction(() => document.getElementById("status").textContent === "The API rejects this token.");
  await page.fill("#token", "reads");
  await page.press("#token", "Enter");
  await page.waitForSelector("#token-form", { state: "hidden" });
  await find(page, "ada");
  await page.waitForFunction(() => document.getElementById("status").textContent === "No customer has this id or email.");
  await page.waitForFunction(() => document.querySelectorAll("#activity dd").length === 4);
  const kept = await page.evaluate(() => ({ session: Object.values(sessionStorage), local: localStorage.length, cookies: document.cookie }));
  assert.deepEqual(kept, { session: ["reads"], local: 0, cookies: "" });
  await page.reload();
  assert.ok(await page.isHidden("#token-form"));
  await page.click("#forget");
  await page.waitForSelector("#token-form:not([hidden])");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  page.clean();
  done("a token is asked for, kept in the tab alone, and forgotten");
  await page.context().close();
}

await browser.close();
console.log(`all ${checks} checks passed; screenshots are in ${SHOTS}`);
