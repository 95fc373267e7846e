"use strict";
// All text from the gateway is set by `textContent`, never as HTML.
const REFRESH_MS = 5000;
const PER_PAGE = 50;
const STALE = "The gateway does not respond. The page shows its last state.";
const query = { search: "", sort: "name", page: 1 };
const COLUMNS = ["Tenant", "State", "Server", "Grant", "Token left", "Last exchange", "Requests", "Cache hits", "Bulkhead"];
const STATES = { ok: ["ok", "ok"], failing: ["failing", "bad"],
  secret_unreadable: ["secret unreadable", "bad"], disabled: ["disabled", "idle"], never_used: ["never used", "idle"] };
const at = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function duration(seconds) {
  if (seconds >= 172800) return `${Math.floor(seconds / 86400)} d`;
  if (seconds >= 7200) return `${Math.floor(seconds / 3600)} h`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min`;
  return `${seconds} s`;
}

const counted = (count, thing) => `${count.toLocaleString()} ${thing}${count === 1 ? "" : "s"}`;
const clock = (time) => new Date(time).toLocaleString();

function showOverview(state) {
  at("version").textContent = state.version;
  const figures = [
    ["Tenants", state.tenants.total], ["OK", state.tenants.ok],
    ["Failing", state.tenants.failing, state.tenants.failing > 0 ? "bad" : ""],
    ["Secret unreadable", state.tenants.secret_unreadable, state.tenants.secret_unreadable > 0 ? "bad" : ""],
    ["Disabled", state.tenants.disabled], ["Never used", state.tenants.never_used], ["Client connections", state.client_connections],
    ["Configuration", `generation ${state.generation}`],
    ["Active since", clock(state.active_since)], ["Started", clock(state.started_at)],
  ];
  const shown = figures.map(([name, value, kind]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", String(value), kind));
    return pair;
  });
  at("figures").replaceChildren(...shown);
  at("listener-rows").replaceChildren(...state.listeners.map((of) => {
    const words = [of.tls ? "HTTPS" : "HTTP", `callers ${of.callers}`];
    if (of.client_certificates) words.push("client certificates required");
    return element("li", `${of.address} · ${words.join(", ")}`);
  }));
}

function tenantRow(of) {
  const [word, kind] = STATES[of.state] ?? [of.state, "idle"];
  const token = of.token ? (of.token.seconds_left > 0 ? duration(of.token.seconds_left) : "expired") : "none";
  const last = of.last_exchange ? `${of.last_exchange.outcome} · ${clock(of.last_exchange.at)}` : "none";
  const hits = of.hit_ratio === null ? "–" : `${(of.hit_ratio * 100).toFixed(1)} %`;
  const bulkhead = of.bulkhead ? `${of.bulkhead.in_use} / ${of.bulkhead.limit}` : "–";
  const texts = [of.name, word, of.server, of.grant, token, last, of.requests.toLocaleString(), hits, bulkhead];
  const row = element("tr");
  texts.forEach((text, index) => {
    const cell = element("td", text);
    cell.dataset.label = COLUMNS[index];
    if (index === 1) cell.className = kind;
    if (index === 5) cell.className = "words";
    if (index > 5) cell.className = "number";
    row.append(cell);
  });
  return row;
}

function showTenants(state) {
  const pages = Math.max(1, Math.ceil(state.found / state.per_page));
  const rows = state.tenants.map(tenantRow);
  if (rows.length === 0) {
    const cell = element("td", "No tenant matches.", "dim");
    cell.colSpan = COLUMNS.length;
    rows.push(element("tr"));
    rows[0].append(cell);
  }
  at("tenant-rows").replaceChildren(...rows);
  at("position").textContent = `Page ${state.page} of ${pages} · ${counted(state.found, "tenant")}`;
  at("previous").disabled = state.page <= 1;
  at("next").disabled = state.page >= pages;
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const sort = head.dataset.sort;
    if (query.sort === sort) head.setAttribute("aria-sort", "ascending");
    else if (query.sort === `-${sort}`) head.setAttribute("aria-sort", "descending");
    else head.removeAttribute("aria-sort");
  }
}

function serverCard(of) {
  const card = element("article");
  const breaker = of.breaker_open ? "breaker open: exchanges are held back" : "breaker closed";
  const list = element("ul");
  for (const one of of.addresses) {
    const cause = one.cause ? `: ${one.cause}` : "";
    list.append(element("li", `${one.address} · ${one.state}${cause} · ${one.in_flight} in flight`,
      one.state === "healthy" ? "ok" : "bad"));
  }
  if (of.addresses.length === 0) list.append(element("li", "No address: its name was not looked up yet.", "dim"));
  card.append(
    element("h3", of.name), element("p", of.url, "dim"),
    element("p", `${counted(of.tenants, "tenant")} · ${of.connections} of ${of.max_connections} connections`),
    element("p", `${breaker} · ${of.exchanges_waiting} exchanges wait · at most ${of.max_exchanges} at once`,
      of.breaker_open ? "bad" : ""),
    list,
  );
  return card;
}

async function read(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(REFRESH_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

let round = 0;

async function refresh() {
  const mine = ++round;
  const wanted = new URLSearchParams({ ...query, per_page: PER_PAGE });
  const freshness = at("freshness");
  try {
    const [status, servers, tenants] = await Promise.all(
      [read("api/v1/status"), read("api/v1/servers"), read(`api/v1/tenants?${wanted}`)]);
    if (mine !== round) return;
    showOverview(status);
    at("server-cards").replaceChildren(...servers.servers.map(serverCard));
    showTenants(tenants);
    // The text changes only after a failure, so that no screen reader repeats it every 5 s.
    if (freshness.className !== "fresh") freshness.textContent = "Refreshed every 5 s";
    freshness.className = "fresh";
  } catch {
    if (mine !== round) return;
    freshness.textContent = STALE;
    freshness.className = "stale";
  }
}

function turn(pages) {
  query.page += pages;
  refresh();
}

let typing;
at("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    query.search = event.target.value;
    query.page = 1;
    refresh();
  }, 200);
});
at("query").addEventListener("submit", (event) => event.preventDefault());
at("previous").addEventListener("click", () => turn(-1));
at("next").addEventListener("click", () => turn(1));
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    const sort = head.dataset.sort;
    query.sort = query.sort === sort ? `-${sort}` : sort;
    query.page = 1;
    refresh();
  });
}
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
