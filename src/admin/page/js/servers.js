function chartOf(name, value, image) {
  const caption = around("figcaption", [`${name} `, element("b", value)]);
  return around("figure", [caption, image]);
}

function serverCard(of) {
  const ejected = of.addresses.filter((one) => one.state !== "healthy").length;
  const state = of.breaker_open || (ejected > 0 && ejected === of.addresses.length) ? ["failing", "bad"]
    : ejected > 0 ? [`${ejected} ejected`, "warn"] : of.addresses.length === 0 ? ["not used yet", "idle"] : ["healthy", "ok"];
  const title = around("div", [element("h3", of.name), pill(...state), element("span", counted(of.tenants, "tenant"), "dim")], "title");
  const parts = [title, element("p", of.url, "dim")];
  if (of.samples) {
    const { rates, now, faults, words } = traffic(of.samples);
    const { p95_ms: p95, mean_ms: mean } = of.samples;
    const last = (list) => milliseconds(list[list.length - 1]);
    const times = `Time that 95 % of the requests did not exceed, over the last ten minutes: now ${last(p95)}`;
    parts.push(around("div", [
      chartOf("Requests a second", rate(now), spark(rates, words, faults)),
      chartOf("95 % within", `${last(p95)}`, spark(p95, `${times}, mean ${last(mean)}`)),
    ], "charts"));
  }
  parts.push(around("div", [
    use("Requests", of.requests_in_flight, of.max_connections, of.requests_waiting),
    use("Connections", of.connections, of.max_connections, 0),
    use("Exchanges", of.exchanges_running, of.exchanges_limit, of.exchanges_waiting),
  ], "uses"));
  if (of.ui) {
    const passed = [counted(of.ui.static_files, "static file"), counted(of.ui.data_requests, "data request")].join(", ");
    const failed = of.ui.failed > 0 ? `, ${number(of.ui.failed)} of them failed` : "";
    parts.push(element("p", `Passed on for pages (ui: pass): ${passed}${failed}`, of.ui.failed > 0 ? "bad" : "dim"));
  }
  if (of.breaker_open) parts.push(element("p", "✕ The breaker is open: exchanges are held back, because the last ones failed.", "bad"));
  const list = of.addresses.map((one) => {
    const healthy = one.state === "healthy";
    const cause = one.cause ? `: ${one.cause}` : "";
    return element("li", `${healthy ? "✓" : "✕"} ${one.address} · ${one.state}${cause} · ${one.in_flight} in flight`, healthy ? "" : "bad");
  });
  if (list.length === 0) list.push(element("li", "No address: its name was not looked up yet.", "dim"));
  parts.push(around("ul", list), element("p", of.health_check ? "with a health check" : "without a health check", "dim"));
  return around("article", parts);
}

function showServers({ servers }) {
  at("server-count").textContent = number(servers.length);
  fill(at("server-cards"), servers.map(serverCard));
}
