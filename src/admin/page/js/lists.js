// Certificates, issuers, reloads and the configuration: they change rarely.
const VALIDITY = { ok: "ok", expiring: "warn", expired: "bad", not_yet_valid: "warn" };

function validity({ state, days_left: days }) {
  const words = { expired: "expired", not_yet_valid: "not valid yet" }[state] ?? counted(days, "day");
  return pill(words, VALIDITY[state] ?? "idle");
}

function showCertificates({ certificates, api_keys: keys }) {
  const all = [
    ...certificates.map((one) => ({ ...one, what: one.subject || "–", where: one.path, from: one.number > 1 ? `${one.file} (${one.number})` : one.file })),
    ...keys.map((one) => ({ ...one, what: `caller ${one.caller}`, where: "API key", from: "–" })),
  ].sort((one, other) => one.validity.days_left - other.validity.days_left);
  rows(at("certificate-rows"), all, (one) => [
    [validity(one.validity), ""], [one.what, "words"], [one.where, "words"], [one.from, "words"], [clock(one.not_after), ""],
  ], "The configuration names no certificate, and no API key expires.");
}

const KEYS = { fixed: ["fixed", "ok"], fetched: ["fetched", "ok"], stale: ["stale: the last fetch failed", "warn"],
  fallback: ["keys of jwks_file", "warn"], no_keys: ["no keys", "bad"], never_fetched: ["not needed yet", "idle"] };

function showIssuers({ issuers }, now) {
  rows(at("issuer-rows"), issuers, (of) => {
    const failure = of.last_failure;
    const last = failure ? around("span", [`${failure.cause} · `, ago(failure.at, now)]) : element("span", "none", "dim");
    const fetches = of.fetches ? `${number(of.fetches.succeeded)} ok, ${number(of.fetches.failed)} failed` : "–";
    const age = of.age_seconds === null ? "–" : duration(of.age_seconds);
    return [[of.caller, ""], [pill(...(KEYS[of.state] ?? [of.state, "idle"])), ""], [of.issuer, "words"],
      [number(of.keys), "number"], [age, "number"], [fetches, "number"], [last, "words"]];
  }, "No caller is known by JWTs.");
}

const OUTCOMES = { applied: "ok", unchanged: "idle", refused: "bad", timed_out: "bad", unreadable: "bad" };
const TRIGGERS = { files: "a file changed", signal: "SIGHUP", action: "an operator" };

function showReloads({ reloads }, now) {
  const items = reloads.map((of) => {
    const item = around("li", [pill(of.outcome.replace("_", " "), OUTCOMES[of.outcome] ?? "idle"), ago(of.at, now),
      ` · ${TRIGGERS[of.trigger] ?? of.trigger}`]);
    if (of.generation !== null) item.append(` · generation ${of.generation}`);
    if (of.findings.length > 0) item.append(around("ul", of.findings.map((finding) => element("li", finding))));
    return item;
  });
  fill(at("reload-rows"), items.length > 0 ? items : [element("li", "None since the start.", "dim")]);
}

/** A value as lines of YAML. */
function asText(value, indent = "") {
  if (value === null || typeof value !== "object") return typeof value === "string" ? quoted(value) : String(value);
  const all = Array.isArray(value) ? value.map((item) => ["-", item]) : Object.entries(value).map(([key, item]) => [`${quoted(key)}:`, item]);
  if (all.length === 0) return Array.isArray(value) ? "[]" : "{}";
  return all.map(([head, item]) => {
    const nested = item !== null && typeof item === "object" && Object.keys(item).length > 0;
    if (!nested) return `${indent}${head} ${asText(item)}`;
    const inner = asText(item, `${indent}  `);
    return head === "-" ? `${indent}- ${inner.trimStart()}` : `${indent}${head}\n${inner}`;
  }).join("\n");
}

const quoted = (text) => (/^[A-Za-z0-9_./@~*][\w./@~*: -]*$/.test(text) && !/: |[: ]$/.test(text) ? text : JSON.stringify(text));

function showConfig({ config }) {
  if (config === null) {
    return fill(at("config-sections"), [element("p", "It is not shown: it has `admin.status: false`, which a restart applies.", "dim")]);
  }
  const open = new Set([...document.querySelectorAll("#config-sections details[open]")].map((one) => one.dataset.section));
  fill(at("config-sections"), Object.entries(config).map(([name, section]) => {
    const made = element("details");
    made.dataset.section = name;
    made.open = open.has(name);
    const nested = section !== null && typeof section === "object";
    const size = nested && ["servers", "callers", "listeners", "warm_up"].includes(name) ? ` (${Object.keys(section).length})` : "";
    const text = element("pre", asText(section));
    text.tabIndex = 0;
    text.setAttribute("aria-label", `Configuration of ${name}`);
    made.append(element("summary", `${name}${size}`), text);
    return made;
  }));
}
