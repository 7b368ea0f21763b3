// The dashboard: lag comes as a stream of events, rates and health are asked for every few seconds. The page keeps no
// history of its own; what it shows is what the process says now, and when the process says nothing it says so.
"use strict";

const SILENCE_MS = 4000; // The stream speaks every second: so long without a word, and what is shown is stale.
const RATES_MS = 2000;
const HEALTH_MS = 3000;
const DASH = "–";
const STEPS = 150;

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

function make(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

// ---- Numbers, as [figure, unit] so that the unit can be small.

function duration(seconds) {
  if (seconds == null) return [DASH, ""];
  if (seconds < 10) return [seconds.toFixed(1), "s"];
  const s = Math.round(seconds);
  if (s < 60) return [`${s}`, "s"];
  if (s < 3600) return [`${Math.floor(s / 60)} min`, `${s % 60} s`];
  if (s < 86400) return [`${Math.floor(s / 3600)} h`, `${Math.floor((s % 3600) / 60)} min`];
  return [`${Math.floor(s / 86400)} d`, `${Math.floor((s % 86400) / 3600)} h`];
}

function latency(seconds) {
  if (seconds == null) return [DASH, ""];
  const ms = seconds * 1000;
  if (ms < 10) return [ms.toFixed(2), "ms"];
  if (ms < 1000) return [ms.toFixed(0), "ms"];
  return [seconds.toFixed(1), "s"];
}

function count(number) {
  if (number == null) return [DASH, ""];
  if (number >= 1e6) return [`${(number / 1e6).toFixed(2)}M`, ""];
  if (number >= 1e5) return [`${(number / 1e3).toFixed(0)}k`, ""];
  if (number > 0 && number < 10) return [number.toFixed(1), ""];
  return [whole.format(Math.round(number)), ""];
}

function bytes(number) {
  if (number == null) return [DASH, ""];
  if (number < 1024) return [`${Math.round(number)}`, "B"];
  const power = Math.min(4, Math.floor(Math.log2(number) / 10));
  const value = number / 1024 ** power;
  return [value.toFixed(value < 10 ? 1 : 0), ["B", "KiB", "MiB", "GiB", "TiB"][power]];
}

const plain = ([figure, unit]) => (unit ? `${figure} ${unit}` : figure);

function show(id, [figure, unit]) {
  const node = at(id);
  const text = plain([figure, unit]);
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(figure, ...(unit ? [make("small", {}, ` ${unit}`)] : []));
}

// A reason names commands and settings between backticks.
function showReason(node, text, ...before) {
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  const parts = text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
  node.replaceChildren(...before, ...parts.filter((part) => part !== ""));
}

// ---- The verdict.

function lanesByName(lanes) {
  const numbers = lanes.map((lane) => lane.partition);
  if (numbers.length === 1) return `lane ${numbers[0]}`;
  if (numbers.length > 6) return `${numbers.length} lanes`;
  return `lanes ${numbers.slice(0, -1).join(", ")} and ${numbers.at(-1)}`;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function sentence(status, lanes) {
  const worst = lanes.filter((lane) => lane.status === status);
  const one = worst.length === 1;
  const names = lanesByName(worst);
  const Names = capital(names);
  switch (status) {
    case "OK": return "Everything that was acknowledged is reaching the store.";
    case "WARN": return `${Names} ${one ? "needs" : "need"} watching. What was acknowledged is safe in the log.`;
    case "STALL": return `Nothing of ${names} reaches the store. What was acknowledged is safe in the log, and waits.`;
    case "STOP": return `Nobody runs ${names}. What was acknowledged is safe in the log, and waits for a worker.`;
    case "REWIND": return `The log or the store is behind where it was, in ${names}.`;
    case "HALTED": return `${Names} ${one ? "has" : "have"} halted to protect the data, and ${one ? "waits" : "wait"} for you.`;
    default: return "This page is older than the process: load it again.";
  }
}

function verdict(status, text, reasons) {
  at("verdict").dataset.status = status;
  set(at("word"), status);
  set(at("sentence"), text);
  const list = at("reasons");
  while (list.children.length > reasons.length) list.lastChild.remove();
  while (list.children.length < reasons.length) list.append(make("li"));
  reasons.forEach(([name, reason], index) => {
    showReason(list.children[index], ` ${reason}`, make("b", {}, name));
    set(list.children[index].firstChild, name);
  });
}

const MOST_REASONS = 3;
let failing = []; // Dependencies that do not answer, as [name, detail].

function showLag(lag) {
  const troubled = lag.lanes.filter((lane) => lane.reason).sort((a, b) => RANK.indexOf(b.status) - RANK.indexOf(a.status));
  // What several lanes say is said once.
  const saying = new Map();
  for (const lane of troubled) saying.set(lane.reason, [...(saying.get(lane.reason) ?? []), lane]);
  const said = [...saying].slice(0, MOST_REASONS);
  const reasons = said.map(([reason, lanes]) => [`${capital(lanesByName(lanes))}:`, reason]);
  const rest = troubled.length - said.reduce((count, [, lanes]) => count + lanes.length, 0);
  if (rest > 0) reasons.push(["", `and ${rest} more ${rest === 1 ? "lane" : "lanes"}, in the table below`]);
  const empty = lag.lanes.every((lane) => lane.end === 0 && lane.lag_seconds != null);
  const text = empty && lag.status === "OK" ? "Ready, and waiting for the first item." : sentence(lag.status, lag.lanes);
  verdict(lag.status, text, reasons.concat(failing));
  show("lag-seconds", duration(lag.lag_seconds));
  show("lag-packs", count(lag.lag_packs));
  show("drain", lag.drain_seconds == null ? [lag.lag_packs ? "not gaining" : DASH, ""] : duration(lag.drain_seconds));
  showLanes(lag.lanes);
  at("first").hidden = !empty || lag.status !== "OK";
  document.title = `${lag.status} · Tallymark`;
}

const RANK = ["OK", "WARN", "STALL", "STOP", "REWIND", "HALTED"];

// ---- The lanes.

function laneRow(partition) {
  const row = make("tr", { role: "row", id: `lane-${partition}` });
  const cell = (name, attributes = {}) => row.append(make("td", { role: "cell", "data-cell": name, ...attributes }));
  cell("partition", { "data-label": "Lane" });
  cell("status", { "data-label": "Status" });
  for (const [name, label] of [["lag", "Lag"], ["packs", "Packs"], ["end", "End"], ["stored", "Stored"], ["checkpoint", "Checkpoint"]]) {
    cell(name, { class: "num", "data-label": label });
  }
  cell("reason", { class: "reason" });
  row.cells[1].append(make("span", { class: "state" }));
  return row;
}

function showLanes(lanes) {
  const body = at("lanes");
  if (body.rows.length !== lanes.length) body.replaceChildren(...lanes.map((lane) => laneRow(lane.partition)));
  const seq = (number) => (number == null ? DASH : whole.format(number));
  lanes.forEach((lane, index) => {
    const [partition, status, lag, packs, end, stored, checkpoint, reason] = body.rows[index].cells;
    set(partition, `${lane.partition}`);
    set(status.firstChild, lane.status);
    status.firstChild.dataset.status = lane.status;
    set(lag, plain(duration(lane.lag_seconds)));
    set(packs, whole.format(lane.lag_packs));
    set(end, seq(lane.end));
    set(stored, seq(lane.stored));
    set(checkpoint, seq(lane.checkpoint));
    showReason(reason, lane.reason ?? "");
  });
}

// ---- Rates and their last five minutes.

function spark(name, values, floor, text) {
  const svg = at(`spark-${name}`);
  const peak = values.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const top = Math.max(peak, floor);
  let line = "";
  let area = "";
  let run = [];
  const finish = () => {
    if (run.length > 1) {
      line += `M${run.join("L")}`;
      area += `M${run[0].split(" ")[0]} 40L${run.join("L")}L${run.at(-1).split(" ")[0]} 40Z`;
    }
    run = [];
  };
  values.forEach((value, index) => {
    if (value == null) return finish();
    run.push(`${STEPS - values.length + index} ${(39 - (value / top) * 36).toFixed(2)}`);
  });
  finish();
  const [areaPath, linePath] = svg.children;
  areaPath.setAttribute("d", area);
  linePath.setAttribute("d", line);
  set(at(`peak-${name}`), values.length ? `peak ${text(peak)}` : "\u00a0");
  svg.setAttribute("aria-label", `Last five minutes, peak ${text(peak)}`);
}

function showRates(rates) {
  show("ingest-rate", count(rates.ingest_items_rate));
  show("apply-rate", count(rates.applied_items_rate));
  show("requests", count(rates.requests_rate));
  show("request-p99", latency(rates.request_p99_seconds));
  show("append-p99", latency(rates.append_p99_seconds));
  show("stored-p99", latency(rates.stored_p99_seconds));
  show("rows", count(rates.stored_rows_rate));
  show("ratio", rates.coalescing_ratio == null ? [DASH, ""] : [rates.coalescing_ratio.toFixed(1), "to 1"]);
  show("dead-letters", [whole.format(rates.dead_letters), ""]);
  const limit = rates.buffer_limit_bytes;
  show("buffer", limit > 0 ? [plain(bytes(rates.buffered_bytes)), `of ${plain(bytes(limit))}`] : [DASH, ""]);
  show("memory", bytes(rates.resident_bytes));
  spark("lag", rates.history.lag_seconds, 1, (value) => plain(duration(value)));
  spark("ingest", rates.history.ingest_items_rate, 10, (value) => plain(count(value)));
  spark("apply", rates.history.applied_items_rate, 10, (value) => plain(count(value)));
  set(at("role"), rates.role === "all" ? "" : rates.role);
  set(at("version"), `Tallymark ${rates.version}`);
  set(at("uptime"), `up ${plain(duration(rates.uptime_seconds)).replace(".0", "")}`);
  const body = `'{"counter": "page_views", "tags": {"path": "/docs"}}'`;
  const url = rates.ingest_url ?? "http://INGEST:8080";
  set(at("first-command"), `curl ${url}/v1/increments -d ${body}`);
}

// ---- Dependencies.

function showHealth(health) {
  const all = Object.entries(health.dependencies);
  const broken = all.filter(([, found]) => found.status === "failing");
  failing = broken.map(([name, found]) => [`The ${name === "hot" ? "hot view" : name} does not answer:`, found.detail]);
  const list = at("dependencies");
  if (list.dataset.names !== all.map(([name]) => name).join()) {
    list.dataset.names = all.map(([name]) => name).join();
    list.replaceChildren(...all.map(([name]) => {
      const item = make("li");
      const parts = [["what", name === "hot" ? "hot view" : name], ["state", ""], ["detail", ""]];
      item.append(...parts.map(([style, text]) => make("span", { class: style }, text)));
      return item;
    }));
  }
  all.forEach(([, found], index) => {
    const [, state, detail] = list.children[index].children;
    state.dataset.status = found.status;
    set(state, found.status);
    set(detail, found.detail ? `${found.target}: ${found.detail}` : found.target);
  });
}

// ---- The connection.

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
let heard = null; // When the process spoke last.
let patience = 1000;
let source = null;

function link(state, text) {
  document.documentElement.dataset.link = state;
  set(at("link"), text);
}

function hear(json) {
  heard = Date.now();
  patience = 1000;
  showLag(JSON.parse(json));
  link("live", "live");
}

function listen() {
  source = new EventSource("api/v1/lag/stream");
  source.onmessage = (event) => hear(event.data);
  source.onerror = () => {
    // The browser connects again by itself, unless it was refused: then ask plainly, and try again later.
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, patience);
    patience = Math.min(patience * 2, 15000);
    ask("api/v1/lag").then((answer) => answer.text()).then(hear).catch(() => {});
  };
}

function watch() {
  const silent = heard == null ? performance.now() : Date.now() - heard;
  if (silent < SILENCE_MS) return;
  const since = heard == null ? "" : ` since ${clock(heard)}`;
  link("stale", `stale${since} · reconnecting`);
  const known = heard == null ? "There is nothing to show yet." : `What is shown here is as of ${clock(heard)}.`;
  verdict("NO CONTACT", `The process does not answer. ${known}`, []);
  document.title = "no contact · Tallymark";
}

function ask(path) {
  return fetch(path, { cache: "no-store", signal: AbortSignal.timeout(4000) });
}

function every(milliseconds, path, use) {
  const round = () =>
    ask(path).then((answer) => answer.json()).then(use).catch(() => {}).finally(() => setTimeout(round, milliseconds));
  round();
}

listen();
every(RATES_MS, "api/v1/overview", showRates);
every(HEALTH_MS, "health/livez", showHealth);
setInterval(watch, 1000);
