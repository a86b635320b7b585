// The live page shows snapshots of the fleet from a stream of events. Everything
// that comes from outside is set as text, never as markup.
"use strict";

const staleAfter = 12000; // ms; the replica sends something every five seconds
const samples = 120; // of each curve, one a second

const $ = (id) => document.getElementById(id);
const rows = new Map(); // article by instance
const curves = { connections: [], sends: [], assigned: [] };
let total = null; // what the tiles show
let received = 0; // when the last snapshot came
let stream = null;

const whole = new Intl.NumberFormat("en");
const count = (n) => whole.format(Math.round(n));
const rate = (n) => (n < 10 && n > 0 ? n.toFixed(1) : count(n));
const seconds = (ms) => (ms < 10000 ? (ms / 1000).toFixed(1) : count(ms / 1000)) + " s";
const memory = (bytes) => (bytes < 2 ** 30 ? count(bytes / 2 ** 20) + " MiB" : (bytes / 2 ** 30).toFixed(1) + " GiB");

// Nomad names instances by UUIDs and shows their first eight characters.
const short = (name) => (/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/.test(name) ? name.slice(0, 8) : name);

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

// connect opens the stream. The browser reopens a stream that broke; a refused one
// is reopened here.
function connect() {
  stream = new EventSource("/fleet");
  stream.onmessage = (event) => {
    received = Date.now();
    const first = !total;
    show(JSON.parse(event.data));
    if (first) tick();
    showLink();
  };
  stream.addEventListener("end", () => {
    received = 0;
    showLink();
  });
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
    showLink();
  };
}

// showLink says whether the page is up to date.
function showLink() {
  const age = received ? Date.now() - received : Infinity;
  const open = stream.readyState === EventSource.OPEN;
  const live = open && age < staleAfter;
  const link = $("link");
  link.dataset.state = live ? "live" : rows.size || received ? "lost" : "wait";
  let words = "live";
  if (!live) {
    words = open ? "no data" : "reconnecting";
    if (received) words += `, last update ${seconds(age)} ago`;
  }
  text(link, words);
  document.body.toggleAttribute("data-stale", !live && rows.size > 0);
}

function show(fleet) {
  total = { connections: 0, capacity: 0, sends: 0, assigned: fleet.assign_rate };
  const releases = new Map();
  let taking = 0;
  for (const server of fleet.servers) {
    const load = server.load;
    if (server.eligible) taking++;
    if (load) {
      total.connections += load.connections;
      total.sends += load.send_rate;
      if (server.passing && !load.draining) total.capacity += load.capacity;
    }
    const release = server.release || "no release";
    releases.set(release, (releases.get(release) || 0) + 1);
  }
  text($("connections"), count(total.connections));
  text($("capacity"), total.capacity ? `room for ${count(total.capacity)}` : "");
  text($("sends"), rate(total.sends));
  text($("assigned"), rate(total.assigned));
  text($("taking"), count(taking));
  text($("listed"), taking === fleet.servers.length ? "all take users" : `of ${fleet.servers.length} take users`);
  showReleases(releases);

  const empty = fleet.servers.length === 0;
  $("empty").hidden = !empty;
  $("totals").hidden = empty;
  showBalance(fleet.balance, empty);
  const age = fleet.catalog_age_ms;
  const consul = age < 0 ? "Consul has not answered it yet" : `its view of Consul is ${seconds(age)} old`;
  text($("replica"), `Seen by status replica ${short(fleet.instance)}; ${consul}.`);
  showServers(fleet.servers);
}

function showBalance(balance, empty) {
  const node = $("balance");
  node.hidden = empty || !balance.text;
  node.dataset.state = balance.state;
  let words = `Balance: ${balance.text}.`;
  if (balance.state === "held") words = `No connections are moved at present: ${balance.text}.`;
  if (balance.state === "moving") words = `Connections move to servers with more room: ${count(balance.to_move)} to go.`;
  text(node, words);
}

function showReleases(releases) {
  const items = [...releases].map(([name, n]) => {
    const item = document.createElement("li");
    item.textContent = n > 1 ? `${name} × ${n}` : name;
    return item;
  });
  $("releases").replaceChildren(...items);
}

function showServers(servers) {
  const seen = new Set();
  for (const server of servers) {
    seen.add(server.instance);
    let row = rows.get(server.instance);
    if (!row) {
      row = $("server").content.firstElementChild.cloneNode(true);
      rows.set(server.instance, row);
    }
    showServer(row, server);
  }
  for (const [instance, row] of rows) {
    if (!seen.has(instance)) {
      row.remove();
      rows.delete(instance);
    }
  }
  // In the order of the list; a row that is in its place is not touched.
  servers.forEach((server, i) => {
    const at = $("servers").children[i];
    const row = rows.get(server.instance);
    if (at !== row) $("servers").insertBefore(row, at || null);
  });
}

// state is the severity and the name of a server's state.
function state(server) {
  const load = server.load;
  if (server.keep_at_most) return ["ok", "sheds to " + count(Math.ceil(server.fair_share))];
  if (server.eligible) return ["ok", "takes users"];
  if (load && load.draining) return ["warn", "draining"];
  if (!server.in_catalog) return ["warn", "leaving"];
  if (!server.passing) return ["bad", "failing"];
  if (load && load.connections + server.pending_assignments >= load.capacity) return ["warn", "full"];
  return ["bad", "silent"];
}

function showServer(row, server) {
  const part = (selector) => row.querySelector(selector);
  const [kind, word] = state(server);
  row.dataset.state = kind;
  text(part("h3"), short(server.instance));
  part("h3").title = server.instance;
  text(part(".state"), word);
  text(part(".where"), [server.address, server.release, server.zone].filter(Boolean).join(" · "));
  part(".why").hidden = !server.reason;
  text(part(".why"), server.reason ? `Gets no users: ${server.reason}.` : "");
  showLoad(part, server);
}

function showLoad(part, server) {
  const load = server.load || { connections: 0, capacity: 0 };
  const percent = (n) => (load.capacity ? Math.min((100 * n) / load.capacity, 100) : 0) + "%";
  part(".used").style.width = percent(load.connections);
  part(".pending").style.width = percent(server.pending_assignments);
  part(".fair").style.left = percent(server.fair_share);
  part(".fair").hidden = !server.fair_share;
  part(".bar").setAttribute("aria-valuenow", load.connections);
  part(".bar").setAttribute("aria-valuemax", load.capacity);
  part(".bar").setAttribute("aria-label", `connections of ${server.instance}`);
  const users = part(".users");
  if (!server.load) {
    text(users, "has not reported");
  } else {
    const used = document.createElement("b");
    used.textContent = count(load.connections);
    const pending = server.pending_assignments ? ` + ${count(server.pending_assignments)} on their way` : "";
    users.replaceChildren(used, ` of ${count(load.capacity)}${pending}`);
  }
  const figure = (name, value) => text(part(`[data-of=${name}]`), server.load ? value() : "–");
  figure("sends", () => rate(load.send_rate));
  figure("queue", () => rate(load.queue_delay_ms) + " ms");
  figure("cpu", () => load.cpu.toFixed(2));
  figure("memory", () => memory(load.memory_bytes));
  figure("report", () => seconds(server.report_age_ms));
}

// curve adds a sample and draws the last ones, the newest on the right.
function curve(name, value) {
  const list = curves[name];
  list.push(value);
  if (list.length > samples) list.shift();
  const svg = document.querySelector(`svg[data-of=${name}]`);
  const most = Math.max(...list, 1) * 1.1;
  const points = list.map((v, i) => `${(100 - ((list.length - 1 - i) * 100) / (samples - 1)).toFixed(1)},${(27 - (26 * v) / most).toFixed(1)}`);
  if (!svg.firstChild) {
    for (const shape of ["polygon", "polyline"]) svg.append(document.createElementNS("http://www.w3.org/2000/svg", shape));
  }
  const first = points[0].split(",")[0];
  svg.firstChild.setAttribute("points", `${first},28 ${points.join(" ")} 100,28`);
  svg.lastChild.setAttribute("points", points.join(" "));
}

// tick adds a sample to the curves every second, so that they always show two
// minutes.
function tick() {
  showLink();
  if (total && $("link").dataset.state === "live") for (const name in curves) curve(name, total[name]);
}

connect();
setInterval(tick, 1000);
