const PER_PAGE = 50;
const query = { search: "", state: "", sort: "name", page: 1 };
const STATES = { ok: ["ok", "ok"], failing: ["failing", "bad"], secret_unreadable: ["secret unreadable", "bad"],
  former_secret: ["former secret", "warn"],
  disabled: ["disabled", "idle"], never_used: ["never used", "idle"] };
let shownTenants = [];
let gatewayTime = "";

function stateOf(tenant) {
  const [word, kind] = STATES[tenant.state] ?? [tenant.state, "idle"];
  return pill(tenant.disabled_by === "operator" ? "disabled by an operator" : word, kind);
}

function tokenLeft({ token: of }) {
  if (!of) return ["none", "number dim"];
  return of.seconds_left > 0 ? [duration(of.seconds_left), "number"] : ["expired", "number bad"];
}

function lastExchange({ last_exchange: of }) {
  if (!of) return element("span", "none", "dim");
  const failed = of.outcome !== "success";
  return around("span", [element("span", of.outcome, failed ? "bad" : ""), " · ", ago(of.at, gatewayTime)]);
}

function embedCalls(of) {
  const words = [["granted", ""], ["cached", ""], ["refused", "warn"], ["page_refused", "warn"], ["user_refused", "warn"],
    ["failed", "bad"], ["masked", "", "in masked mode"]];
  const shown = words.filter(([name]) => of[name] > 0);
  if (shown.length === 0) return element("span", "none", "dim");
  const parts = shown.map(([name, kind, label = name.replace("_", " ")]) => element("span", `${number(of[name])} ${label}`, kind));
  return around("span", parts.flatMap((part, index) => (index > 0 ? [" · ", part] : [part])));
}

const hits = (ratio) => (ratio === null ? "–" : `${(ratio * 100).toFixed(1)} %`);

function tenantCells(of) {
  const name = element("button", of.name, "link");
  name.type = "button";
  name.dataset.tenant = of.name;
  name.dataset.key = of.name;
  let chart = element("span", "–", "dim");
  if (of.samples) {
    const { rates, faults, words } = traffic(of.samples);
    chart = spark(rates, words, faults);
  }
  const grant = around("span", [of.grant, element("span", ` · ${of.user_source}`, "dim")]);
  return [[name, "name"], [stateOf(of), "state"], [of.server, ""], [grant, "grant"], tokenLeft(of), [lastExchange(of), "words"],
    [chart, ""], [number(of.requests), "number"], [hits(of.hit_ratio), "number"]];
}

function showTenants(state, now) {
  gatewayTime = now;
  shownTenants = state.tenants;
  const pages = Math.max(1, Math.ceil(state.found / state.per_page));
  rows(at("tenant-rows"), state.tenants, tenantCells, "No tenant matches.");
  at("tenant-count").textContent = number(state.found);
  at("position").textContent = `Page ${state.page} of ${pages} · ${counted(state.found, "tenant")}`;
  at("previous").disabled = state.page <= 1;
  at("next").disabled = state.page >= pages;
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const sort = head.dataset.sort;
    if (query.sort === sort) head.setAttribute("aria-sort", "ascending");
    else if (query.sort === `-${sort}`) head.setAttribute("aria-sort", "descending");
    else head.removeAttribute("aria-sort");
  }
  if (at("details").open) showDetails(at("details").dataset.tenant);
}

function showDetails(name) {
  const of = shownTenants.find((tenant) => tenant.name === name);
  if (!of) return;
  at("details-title").textContent = of.name;
  const whole = (name, value) => {
    const made = figure(name, value);
    made.className = "row";
    return made;
  };
  const bulkhead = of.bulkhead ? `${number(of.bulkhead.in_use)} of ${number(of.bulkhead.limit)}` : "that of its server";
  const parts = [
    figure("State", stateOf(of)), figure("Server", of.server), figure("Site", of.site ?? "–"),
    figure("Grant", of.grant), figure("User source", of.user_source), figure("Requests", number(of.requests)),
    figure("Cache hits", hits(of.hit_ratio)), figure("Bulkhead", bulkhead),
  ];
  if (of.secret_position) parts.push(figure("Secret in use", `${of.secret_position} of 2`));
  if (of.rotation_unfinished) parts.push(figure("Rotation", pill("not ended", "warn")));
  if (of.token) {
    parts.push(figure("Token age", duration(of.token.age_seconds)), figure("Token left", tokenLeft(of)[0]),
      figure("Token expires", clock(of.token.expires_at)));
  } else {
    parts.push(figure("Token", "none"));
  }
  if (of.hosts.length > 0) parts.push(whole("Hosts", of.hosts.join(", ")));
  parts.push(whole("Last exchange", lastExchange(of)));
  if (of.embed_calls) parts.push(whole("Embed calls", embedCalls(of.embed_calls)));
  if (of.samples) {
    const { rates, now, failed, faults, words } = traffic(of.samples);
    const chart = around("span", [`${rate(now)} a second; ${number(failed)} failed in 10 min`, spark(rates, words, faults)]);
    parts.push(whole("Last 10 minutes", chart));
    const { mean_ms: mean } = of.samples;
    const last = milliseconds(mean[mean.length - 1]);
    const times = spark(mean, `Mean time of a request over the last ten minutes: now ${last}`);
    parts.push(whole("Mean time of a request", around("span", [last, times])));
  }
  fill(at("details-figures"), parts);
  at("tenant-actions").hidden = !mayAct;
  const disabled = of.state === "disabled";
  const button = (action) => at("tenant-actions").querySelector(`[data-action="${action}"]`);
  button("disable-tenant").hidden = disabled;
  button("enable-tenant").hidden = !disabled || of.disabled_by === "configuration";
  button("refresh-token").hidden = disabled;
}

async function openDetails(name) {
  const dialog = at("details");
  dialog.dataset.tenant = name;
  at("details-said").textContent = "";
  at("details-config").textContent = "Loading …";
  showDetails(name);
  dialog.showModal();
  try {
    const { config } = await read(`api/v1/config?${new URLSearchParams({ tenant: name })}`);
    at("details-config").textContent = asText(config);
  } catch {
    at("details-config").textContent = "It could not be read.";
  }
}

function ask(change) {
  Object.assign(query, { page: 1 }, change);
  at("state").value = query.state;
  const sorts = at("sort");
  // A head can sort in ways that the list does not have.
  sorts.value = [...sorts.options].some((option) => option.value === query.sort) ? query.sort : "";
  refresh();
}
