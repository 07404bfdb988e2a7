"use strict";

// The page sends requests only to the API that serves it. The token stays in this
// tab, and customer ids never appear in the URL of the page.

const $ = (id) => document.getElementById(id);
const tokenKey = "profile-explorer-token";

// el creates an element. Text is always inserted as text, never as markup.
function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === false) continue;
    if (name === "class") e.className = value;
    else e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}

function showStatus(text, bad) {
  $("status").textContent = text;
  $("status").dataset.kind = bad ? "bad" : "";
}

// ApiError is an error response of the API, or status 0 without a response.
class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function request(path, options) {
  const headers = { ...(options && options.headers) };
  const token = sessionStorage.getItem(tokenKey);
  if (token) headers.Authorization = "Bearer " + token;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw new ApiError(0, "unreachable", "The API cannot be reached.");
  }
  if (response.ok) return response;
  let problem = {};
  try {
    problem = (await response.json()).error || {};
  } catch {
    // The response does not come from the API, but from a proxy.
  }
  if (response.status === 401) requestToken(Boolean(token));
  throw new ApiError(response.status, problem.code || "", problem.message || "The API responded with status " + response.status + ".");
}

function requestToken(isInvalid) {
  $("token-form").hidden = false;
  $("process").hidden = true;
  $("empty").hidden = true;
  if (isInvalid) {
    sessionStorage.removeItem(tokenKey);
    $("forget").hidden = true;
    showStatus("The API rejects this token.", true);
  }
  if (!document.activeElement || document.activeElement === document.body || document.activeElement === $("id")) $("token").focus();
}

// The customer on display. asOf is null for now. by is the identifier of which id
// is a value, empty for an id, and null while unknown.
let view = { id: "", by: null, asOf: null };
let identifiers = null; // of the profile definition, once loaded
let generation = 0; // of the latest search; responses to earlier ones are dropped

const two = (n) => String(n).padStart(2, "0");
const localText = (d) => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const count = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

function timeOf(text) {
  const d = new Date(text);
  return Number.isNaN(d.getTime()) ? text : el("time", { datetime: text, title: text }, clock.format(d));
}

function query(by) {
  const parts = [];
  if (by) parts.push("by=" + encodeURIComponent(by));
  if (view.asOf) parts.push("as_of=" + encodeURIComponent(view.asOf.toISOString()));
  return parts.length ? "?" + parts.join("&") : "";
}

const stateOf = () => ({ id: view.id, by: view.by, asOf: view.asOf && view.asOf.getTime() });
const viewOf = (s) => ({ id: s.id || "", by: s.by ?? null, asOf: s.asOf ? new Date(s.asOf) : null });

// loadIdentifiers returns the identifiers that find customers besides their ids.
async function loadIdentifiers() {
  if (!identifiers) {
    identifiers = (await (await request("/api/identifiers")).json()).identifiers;
    $("id").placeholder = ["userId", "anonymousId", ...identifiers].join(", ").replace(/, ([^,]*)$/, " or $1");
  }
  return identifiers;
}

// load requests the explanation and the profile of the customer with an id, or with
// a value of by.
function load(id, by) {
  const path = "/api/customer/" + encodeURIComponent(id);
  return Promise.all([
    request(path + "/explain" + query(by)).then((r) => r.json()),
    // The API refuses a profile at a time that its record cannot be evaluated
    // at; the explanation contains what is known.
    request(path + query(by)).then((r) => r.json()).catch((e) => (e.code === "as_of_too_early" ? {} : Promise.reject(e))),
  ]);
}

// search loads a customer by the known identifier or, one after the other, by id
// and by all identifiers.
async function search(id, by) {
  if (by !== null) return [by, ...(await load(id, by))];
  try {
    return ["", ...(await load(id, ""))];
  } catch (e) {
    if (e.code !== "no_such_customer") throw e;
    for (const name of await loadIdentifiers()) {
      try {
        return [name, ...(await load(id, name))];
      } catch (other) {
        if (other.code !== "no_such_customer") throw other;
      }
    }
    throw e;
  }
}

function show(value) {
  if (value === null || value === undefined) return el("span", { class: "none" }, "none");
  if (typeof value === "number") return String(Math.round(value * 1e4) / 1e4);
  if (typeof value === "string") return /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(value) ? timeOf(value) : value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value) && value.length > 24 && value.every((v) => typeof v === "number")) {
    return value.every((v) => v === 0) ? "all 0" : value.filter((v) => v !== 0).length + " of " + value.length + " above 0";
  }
  const text = JSON.stringify(value);
  if (text === "{}" || text === "[]") return el("span", { class: "none" }, "none");
  if (!Array.isArray(value)) return Object.entries(value).map(([k, v]) => k + ": " + (typeof v === "object" ? JSON.stringify(v) : v)).join(", ");
  return value.map((v) => (v && typeof v === "object" && "count" in v ? v.value + " × " + v.count : typeof v === "object" ? JSON.stringify(v) : v)).join(", ");
}

// row returns a table row. Its roles keep it a row for screen readers on a narrow
// screen, where CSS stacks the cells.
const row = (...cells) => el("tr", { role: "row" }, ...cells.map(([kind, ...content]) => el("td", { class: kind, role: "cell" }, ...content)));

// breakable allows a line break after each underscore of a name.
const breakable = (name) => name.split("_").flatMap((part, i) => (i ? ["_", el("wbr"), part] : [part]));

const plural = (n, one, many) => count.format(n) + " " + (n === 1 ? one : many);

// find shows a customer.
async function find(remember) {
  const mine = ++generation;
  if (remember) history.pushState(stateOf(), "");
  else history.replaceState(stateOf(), "");
  $("id").value = view.id;
  $("as-of").value = view.asOf ? localText(view.asOf) : "";
  $("now").setAttribute("aria-pressed", String(!view.asOf));
  if (!view.id) return;
  showStatus("Searching…");
  try {
    const [by, explained, profile] = await search(view.id, view.by);
    if (mine !== generation) return;
    view.by = by;
    history.replaceState(stateOf(), "");
    fill(explained, profile);
    $("found").hidden = false;
    $("empty").hidden = true;
    $("token-form").hidden = true;
    showStatus("Showing " + explained.id + (by ? ", found by " + by + "," : "") + (view.asOf ? " as of " + clock.format(view.asOf) : " as of now") + ": " +
      plural(explained.traits.length, "trait", "traits") + ", " + plural(explained.features.length, "feature", "features") + ", " +
      plural(explained.events.kept, "event", "events") + ".");
    await loadContent();
  } catch (e) {
    if (mine !== generation) return;
    $("found").hidden = true;
    if (e.status === 401) return;
    $("empty").hidden = false;
    showStatus(e.code === "no_such_customer" ? "No customer has this " + ["id", ...(identifiers || [])].join(" or ") + "."
      : e.code === "ambiguous_identifier" ? "Several customers have this value: search by id." : e.message, true);
  }
}

function fact(list, name, ...value) {
  list.append(el("dt", null, name), el("dd", null, ...value));
}

function fill(x, profile) {
  const facts = $("facts");
  facts.replaceChildren();
  fact(facts, "Id", el("span", { class: "mono" }, x.id));
  if (view.by) fact(facts, "Found by", view.by + ": ", el("span", { class: "mono" }, view.id));
  else if (x.id !== view.id) fact(facts, "Requested id", el("span", { class: "mono" }, view.id));
  fact(facts, "As of", timeOf(x.as_of));
  fact(facts, "Last event received", x.updated_at ? timeOf(x.updated_at) : "none");
  if (x.merged) fact(facts, "Merged into it", plural(x.merged, "other id", "other ids"));
  if (!x.complete) {
    facts.append(el("dt", null, "Note"), el("dd", null, el("p", { class: "warn" },
      "Events of about this time are stored in summaries only: features are approximate.")));
  }

  const segments = $("segments");
  const names = Array.isArray(profile.segments) ? profile.segments.map((s) => [s, null]) : Object.entries(profile.segments || {});
  segments.replaceChildren(...(names.length
    ? names.map(([name, s]) => el("li", s && s.since ? { title: "since " + s.since } : null, name))
    : [el("li", { class: "none" }, profile.segments ? "In none" : "None are defined")]));

  $("traits").replaceChildren(...(x.traits.length
    ? x.traits.map((t) => row(["name", t.name], ["", t.value === null ? el("span", { class: "none" }, "unset") : show(t.value)],
      ["", t.source || "—"], ["time", timeOf(t.time)]))
    : [row(["none", "None are set."])]));

  const open = new Set([...document.querySelectorAll("#features details[open]")].map((d) => d.dataset.name));
  $("features").replaceChildren(...x.features.map((f) => feature(f, open.has(f.name))));
  filter();

  $("events-note").textContent = x.events.latest.length < x.events.kept
    ? "The latest " + x.events.latest.length + " of " + count.format(x.events.kept) + " stored events."
    : plural(x.events.kept, "stored event", "stored events") + ".";
  if (x.events.folded_to) $("events-note").append(" Events up to ", timeOf(x.events.folded_to), " are stored in summaries.");
  $("events").replaceChildren(...(x.events.latest.length
    ? x.events.latest.map((e) => row(["time", timeOf(e.time)],
      ["name", (e.names || []).join(" or ") || "—"], ["", (e.features || []).join(", ") || el("span", { class: "none" }, "no feature")]))
    : [row(["none", "None before this time."])]));
}

// sentence describes a feature in words.
function sentence(f) {
  if (f.needs && f.needs.length) return f.kind + " of " + f.needs.join(", ");
  let text = f.kind + " of " + (f.events ? f.events.join(" or ") : "every event");
  if (f.of) text += ", reading " + f.of;
  if (f.by) text += ", by " + f.by;
  if (f.where) text += ", where " + f.where;
  return text + (f.window ? ", within " + f.window : ", since the beginning");
}

function feature(f, open) {
  const value = show(f.value);
  const none = value instanceof Element && value.className === "none";
  const why = el("div", { class: "why" }, el("p", null, sentence(f) + "."));
  if (f.since) why.append(el("p", { class: "warn" }, "It is complete only from ", timeOf(f.since), " on."));
  if (!f.needs) {
    why.append(el("p", null, plural(f.counted, "event counts", "events count") + (f.folded ? ", and summarised ones" : "") +
      (f.occurrences && f.occurrences.length < f.counted ? "; the latest " + f.occurrences.length + ":" : f.counted ? ":" : ".")));
  }
  if (f.occurrences) {
    const columns = [...new Set(f.occurrences.flatMap((o) => Object.keys(o.values || {})))];
    why.append(el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Events that count for " + f.name }, el("table", null,
      el("thead", null, el("tr", null, el("th", { scope: "col" }, "Time"), ...columns.map((c) => el("th", { scope: "col" }, c)))),
      el("tbody", null, ...f.occurrences.map((o) => el("tr", null, el("td", { class: "time" }, timeOf(o.time)),
        ...columns.map((c) => el("td", null, show((o.values || {})[c])))))))));
  }
  return el("details", { "data-name": f.name, open },
    el("summary", null, el("span", { class: "name" }, ...breakable(f.name)), el("span", { class: none ? "value none" : "value" }, none ? "none" : value)), why);
}

function filter() {
  const part = $("filter").value.trim().toLowerCase();
  for (const d of document.querySelectorAll("#features details")) d.hidden = !d.dataset.name.toLowerCase().includes(part);
}

// The content of blocks.
let blocks = null;

async function loadContent() {
  if (!blocks) {
    try {
      blocks = (await (await request("/api/content")).json()).blocks;
    } catch (e) {
      if (e.status === 401) return;
      blocks = null;
      noContent(e.status === 403 ? "This token lacks the scope content." : e.message);
      return;
    }
    $("block").replaceChildren(...blocks.map((b) => el("option", { value: b.name, title: b.description }, b.name)));
    listSamples();
  }
  await render();
}

function listSamples() {
  const block = (blocks || []).find((b) => b.name === $("block").value);
  $("render-for").replaceChildren(el("option", { value: "" }, "This customer"),
    ...(block ? block.samples.map((s) => el("option", { value: "s" + s }, "Sample: " + s)) : []));
}

function noContent(message) {
  $("block").disabled = $("render-for").disabled = true;
  $("content").hidden = $("content-text").hidden = true;
  $("content-note").textContent = message;
}

async function render() {
  const block = (blocks || []).find((b) => b.name === $("block").value);
  if (!block) return noContent("No content blocks are defined.");
  $("block").disabled = $("render-for").disabled = false;
  const sample = $("render-for").value;
  const mine = generation;
  const path = sample
    ? "/api/content/" + encodeURIComponent(block.name) + "/preview?sample=" + encodeURIComponent(sample.slice(1))
    : "/api/customer/" + encodeURIComponent(view.id) + "/content/" + encodeURIComponent(block.name) + query(view.by);
  try {
    const response = await request(path);
    const text = await response.text();
    if (mine !== generation || sample !== $("render-for").value || block.name !== $("block").value) return;
    const fallback = response.headers.get("Content-Fallback");
    const reasons = {
      no_customer: "no such customer", missing_value: "the profile lacks a value the block requires",
      over_time: "the template took too long", over_size: "the content is too large", failed: "the template failed",
    };
    $("content-note").textContent = (block.description ? block.description + " " : "") +
      (fallback ? "This is the fallback: " + (reasons[fallback] || fallback) + "." : "") + (text.trim() ? "" : " The content is empty.");
    const html = block.type === "html";
    $("content").hidden = !html;
    $("content-text").hidden = html;
    if (html) frame(text);
    else $("content-text").textContent = text;
  } catch (e) {
    if (mine === generation && e.status !== 401) {
      $("content").hidden = $("content-text").hidden = true;
      $("content-note").textContent = e.message;
    }
  }
}

// frame shows HTML such that nothing in it can act: the frame runs no scripts, and
// inherits the policy of the page, which blocks all requests. Everything that the
// policy would block is removed first. It also blocks styles, which are therefore
// applied by script.
function frame(html) {
  const doc = new DOMParser().parseFromString(html, "text/html");
  const sheets = [...doc.querySelectorAll("style")].map((s) => s.textContent).join("\n");
  for (const e of doc.querySelectorAll("script, style, link, meta, base, object, embed, iframe, frame, frameset")) e.remove();
  let pictures = 0;
  for (const e of doc.querySelectorAll("*")) {
    for (const a of [...e.attributes]) {
      const name = a.name.toLowerCase();
      if (name === "style") {
        e.setAttribute("data-style", a.value);
        e.removeAttribute(a.name);
      } else if (name.startsWith("on")) e.removeAttribute(a.name);
      else if (name === "src" || name === "srcset" || name === "background" || name === "poster") {
        pictures++;
        e.removeAttribute(a.name);
      } else if (name === "href" && e.localName === "a") e.title = a.value;
    }
  }
  if (pictures) $("content-note").append(" " + plural(pictures, "picture is", "pictures are") + " not loaded here.");
  const f = $("content");
  f.onload = () => {
    const inner = f.contentDocument;
    if (!inner || !inner.body) return;
    for (const e of inner.querySelectorAll("[data-style]")) e.style.cssText = e.getAttribute("data-style");
    const sheet = new inner.defaultView.CSSStyleSheet();
    sheet.replaceSync("body { margin: 12px; font: 15px/1.5 sans-serif; color: #16202e; background: #fff }\n" +
      "img { max-width: 100%; min-height: 3em; padding: 4px; border: 1px dashed #8593a6; color: #4d5b6d }\n" + sheets.replace(/@import[^;]*;?/gi, "").replace(/url\([^)]*\)/gi, "none"));
    inner.adoptedStyleSheets = [sheet];
    f.style.height = Math.min(Math.max(Math.ceil(inner.body.getBoundingClientRect().height) + 26, 64), 640) + "px";
  };
  f.srcdoc = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Content</title></head>' + doc.body.outerHTML + "</html>";
}

const milliseconds = (n) => (n < 10 ? n.toFixed(2) : Math.round(n)) + "\u00a0ms";

// The activity of the process, every two seconds while the tab is visible.
let before = null;

async function poll() {
  if (!document.hidden) {
    try {
      const ready = await fetch("/readyz", { cache: "no-store", credentials: "omit" });
      $("state").dataset.state = ready.ok ? "up" : "down";
      $("state-text").textContent = ready.ok ? "Ready" : "The store is unavailable";
    } catch {
      $("state").dataset.state = "down";
      $("state-text").textContent = "The API cannot be reached";
    }
    if ($("token-form").hidden) {
      try {
        activity(await (await request("/api/activity")).json());
        await loadIdentifiers();
      } catch (e) {
        if (e.status === 403) $("activity").replaceChildren(el("div", null, el("dt", null, "Activity"), el("dd", null, el("small", null, "This token lacks the scope read."))));
      }
    }
  }
  setTimeout(poll, 2000);
}

function activity(a) {
  const seconds = before ? (Date.parse(a.now) - Date.parse(before.now)) / 1000 : 0;
  const rate = (now, then) => (seconds > 0 ? " " + count.format(Math.max(0, now - then) / seconds) + "/s" : "");
  const dead = (x) => Object.values(x.dead_letters).reduce((n, v) => n + v, 0);
  const requests = (x) => Object.values(x.requests).reduce((n, v) => n + v.count, 0);
  const tile = (name, now, then) => el("div", null, el("dt", null, name), el("dd", null, count.format(now), el("small", null, rate(now, then))));
  const b = before || a;
  const customer = a.requests.customer;
  $("activity").replaceChildren(
    tile("Accepted events", a.events.taken, b.events.taken),
    tile("Rejected events", Math.max(dead(a), a.events.refused), Math.max(dead(b), b.events.refused)),
    tile("Requests", requests(a), requests(b)),
    el("div", null, el("dt", null, "Profile reads, p99"), el("dd", null, customer ? milliseconds(customer.p99_ms) : "—")),
  );
  $("requests").replaceChildren(...Object.entries(a.requests).sort(([x], [y]) => (x < y ? -1 : 1)).map(([name, r]) => el("tr", null,
    el("td", { class: "name" }, name), el("td", { class: "n" }, count.format(r.count)), el("td", { class: "n" }, count.format(r.errors)),
    el("td", { class: "n" }, milliseconds(r.p50_ms)), el("td", { class: "n" }, milliseconds(r.p99_ms)))));
  before = a;
  $("process").hidden = false;
}

$("find").addEventListener("submit", (e) => {
  e.preventDefault();
  view.id = $("id").value;
  view.by = null;
  $("render-for").value = "";
  find(true);
});
$("when").addEventListener("submit", (e) => e.preventDefault());
$("as-of").addEventListener("change", () => {
  const d = new Date($("as-of").value);
  view.asOf = $("as-of").value && !Number.isNaN(d.getTime()) ? d : null;
  find(true);
});
for (const b of document.querySelectorAll("[data-step]")) {
  b.addEventListener("click", () => {
    const from = view.asOf || new Date(Math.floor(Date.now() / 1000) * 1000);
    view.asOf = new Date(from.getTime() + Number(b.dataset.step) * 1000);
    if (view.asOf.getTime() >= Date.now()) view.asOf = null;
    find(true);
  });
}
$("now").addEventListener("click", () => {
  view.asOf = null;
  find(true);
});
$("filter").addEventListener("input", filter);
$("block").addEventListener("change", () => {
  listSamples();
  render();
});
$("render-for").addEventListener("change", render);
$("token-form").addEventListener("submit", (e) => {
  e.preventDefault();
  sessionStorage.setItem(tokenKey, $("token").value.trim());
  $("token").value = "";
  $("token-form").hidden = true;
  $("forget").hidden = false;
  $("empty").hidden = false;
  blocks = null;
  showStatus("");
  $("id").focus();
  if (view.id) find(false);
});
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(tokenKey);
  location.reload();
});
document.addEventListener("keydown", (e) => {
  if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
  e.preventDefault();
  $("id").focus();
  $("id").select();
});
window.addEventListener("popstate", (e) => {
  view = viewOf(e.state || {});
  if (!view.id) {
    $("found").hidden = true;
    $("empty").hidden = false;
    showStatus("");
  }
  find(false);
});

$("zone").textContent = "In your time zone, " + Intl.DateTimeFormat().resolvedOptions().timeZone + ".";
$("forget").hidden = !sessionStorage.getItem(tokenKey);
view = viewOf(history.state || {});
if (view.id) find(false);
else $("id").focus();
poll();
