// Reads everything again and again; slower while the gateway does not respond, and not while the page
// is hidden.
const REFRESH_MS = 5000;
const MAX_PAUSE_MS = 60000;
/** Rounds after which the lists that change rarely are read again. */
const LISTS_EVERY = 6;
let round = 0;
let timer;
let failures = 0;
let lastGood = 0;
let lists = { generation: undefined, age: LISTS_EVERY };

async function showLists(state) {
  lists.age += 1;
  if (lists.generation === state.generation && lists.age < LISTS_EVERY) return;
  const [certificates, issuers, reloads] = await Promise.all(
    [read("api/v1/certificates"), read("api/v1/issuers"), read("api/v1/reloads")]);
  showCertificates(certificates);
  showIssuers(issuers, state.now);
  showReloads(reloads, state.now);
  if (lists.generation !== state.generation) showConfig(await read("api/v1/config"));
  lists = { generation: state.generation, age: 0 };
}

function showFresh() {
  failures = 0;
  lastGood = Date.now();
  at("stale").hidden = true;
  document.body.classList.remove("is-stale");
  at("freshness").textContent = `read every ${REFRESH_MS / 1000} s`;
}

function showStale(cause, pause) {
  const since = lastGood > 0 ? ` The page shows its state of ${new Date(lastGood).toLocaleTimeString()}.` : "";
  const text = `${cause}${since} Tried every ${Math.round(pause / 1000)} s.`;
  // The text changes rarely, so that a screen reader does not repeat it.
  if (at("stale-text").textContent !== text) at("stale-text").textContent = text;
  at("stale").hidden = false;
  at("freshness").textContent = "stale";
  document.body.classList.toggle("is-stale", lastGood > 0);
}

/** Asks for the token once. Without one, the page waits for "Try now". */
async function lock() {
  const text = token ? "The gateway has refused this token." : "This gateway shows its state with a token.";
  token = "";
  at("verdict").textContent = "locked";
  if (await askForToken(`${text} It is in \`admin.token_file\`.`)) return refresh();
  const since = lastGood > 0 ? ` The page shows its state of ${new Date(lastGood).toLocaleTimeString()}.` : "";
  at("stale-text").textContent = `${text}${since}`;
  at("stale").hidden = false;
  at("freshness").textContent = "locked";
  document.body.classList.toggle("is-stale", lastGood > 0);
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  const wanted = new URLSearchParams({ sort: query.sort, page: query.page, per_page: PER_PAGE });
  if (query.search) wanted.set("search", query.search);
  if (query.state) wanted.set("state", query.state);
  let pause = REFRESH_MS;
  try {
    const [status, servers, tenants] = await Promise.all(
      [read("api/v1/status"), read("api/v1/servers"), read(`api/v1/tenants?${wanted}`)]);
    if (mine !== round) return;
    showOverview(status);
    showServers(servers);
    showStore(status.token_store, status.now);
    showTenants(tenants, status.now);
    await showLists(status);
    if (mine !== round) return;
    showFresh();
  } catch (error) {
    if (mine !== round) return;
    if (error instanceof Unauthorized) return lock();
    failures += 1;
    pause = Math.min(MAX_PAUSE_MS, REFRESH_MS * 2 ** (failures - 1));
    showStale(error instanceof Failed ? error.message : "The gateway does not respond.", pause);
  }
  if (!document.hidden) timer = setTimeout(refresh, pause);
}

let typing;
at("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => ask({ search: event.target.value }), 200);
});
at("query").addEventListener("submit", (event) => event.preventDefault());
at("state").addEventListener("change", (event) => ask({ state: event.target.value }));
at("sort").addEventListener("change", (event) => ask({ sort: event.target.value }));
at("retry").addEventListener("click", refresh);
const turn = (pages) => ask({ page: query.page + pages });
at("previous").addEventListener("click", () => turn(-1));
at("next").addEventListener("click", () => turn(1));
for (const head of document.querySelectorAll("th[data-sort]")) {
  const sort = head.dataset.sort;
  head.firstElementChild.addEventListener("click", () => ask({ sort: query.sort === sort ? `-${sort}` : sort }));
}
document.addEventListener("click", ({ target }) => {
  const tenant = target.closest("[data-tenant]:not(dialog)");
  const action = target.closest("[data-action]");
  const state = target.closest("[data-state]");
  if (state) {
    ask({ state: state.dataset.state });
    at("tenants").scrollIntoView();
  } else if (target.closest("[data-close]")) target.closest("dialog").close();
  else if (tenant) openDetails(tenant.dataset.tenant);
  else if (action?.dataset.action === "reload") act("reload", {});
  else if (action?.dataset.action === "log-level") act("log-level", { level: at("level").value || null });
  else if (action) act(action.dataset.action, { tenant: at("details").dataset.tenant });
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
refresh();
