const SECTIONS = { overview: "overview", tenants: "tenants", servers: "servers", store: "store", certificates: "certificates", issuers: "issuers", reloads: "reloads" };
let mayAct = false;
let needsToken = false;

function showVerdict(problems) {
  const failing = problems.filter((one) => one.severity === "failing").length;
  const warnings = problems.length - failing;
  const words = [];
  if (failing > 0) words.push(`${failing} failing`);
  if (warnings > 0) words.push(counted(warnings, "warning"));
  const kind = failing > 0 ? "bad" : warnings > 0 ? "warn" : "ok";
  const shown = pill(words.join(" · ") || "all well", kind);
  const verdict = at("verdict");
  if (verdict.textContent !== shown.textContent) verdict.textContent = shown.textContent;
  verdict.className = shown.className;
  document.title = `${failing > 0 ? `(${failing}) ` : ""}boldgate status`;
}

/** A count that shows its tenants. */
function filter(state, text, kind) {
  const made = element("button", text, `link ${kind ?? ""}`.trim());
  made.type = "button";
  made.dataset.state = state;
  made.dataset.key = `state ${state}`;
  made.title = "show these tenants";
  return made;
}

function showOverview(state) {
  at("version").textContent = state.version;
  showVerdict(state.problems);
  fill(at("problems"), state.problems.map((one) => {
    const failing = one.severity === "failing";
    const link = element("a", one.text);
    link.href = `#${SECTIONS[one.section] ?? "overview"}`;
    link.dataset.key = one.text;
    const item = around("li", [failing ? "✕ Failing: " : "▲ Warning: ", link], failing ? "bad" : "warn");
    return item;
  }));
  const { rates, now, failed, faults, words } = traffic(state.samples);
  const times = state.samples.p95_ms;
  const p95 = times[times.length - 1];
  const chart = (name, value, image) => {
    const cell = around("dd", [element("span", value), image]);
    return around("div", [element("dt", name), cell]);
  };
  const counts = state.tenants;
  const kind = (count) => (count > 0 ? "bad" : "");
  fill(at("figures"), [
    chart("Requests a second", rate(now), spark(rates, words, faults)),
    chart("95 % within", milliseconds(p95), spark(times, `Time that 95 % of the requests did not exceed, over the last ten minutes: now ${milliseconds(p95)}`)),
    figure("Failed in 10 min", number(failed), kind(failed)),
    figure("Requests in flight", number(state.requests_in_flight)),
    figure("Client connections", number(state.client_connections)),
    figure("Tenants ok", filter("ok", `${number(counts.ok)} of ${number(counts.total)}`)),
    figure("Failing", filter("failing", number(counts.failing), kind(counts.failing))),
    figure("Secret unreadable", filter("secret_unreadable", number(counts.secret_unreadable), kind(counts.secret_unreadable))),
    figure("Disabled", filter("disabled", number(counts.disabled))),
    figure("Never used", filter("never_used", number(counts.never_used))),
    figure("Configuration", `generation ${state.generation}`),
    figure("Active since", ago(state.active_since, state.now)),
    figure("Started", ago(state.started_at, state.now)),
    figure("Log level", state.log_level),
  ]);
  mayAct = state.actions === true;
  needsToken = state.credential === "token";
  at("gateway-actions").hidden = !mayAct;
  fill(at("listener-rows"), state.listeners.map((of) => {
    const words = [of.tls ? "HTTPS" : "HTTP", `callers ${of.callers}`];
    if (of.client_certificates) words.push("client certificates required");
    return element("li", `${of.address} · ${words.join(" · ")}`);
  }));
}
