/** The token store of the fleet, if there is one. */
function showStore(of, now) {
  at("store").hidden = at("store-link").hidden = !of;
  if (!of) return;
  const states = { connecting: ["connecting", "idle"], in_use: ["in use", "ok"], away: ["away", "warn"] };
  const fault = of.last_fault;
  const said = fault ? `Last fault, ${clock(fault.at)}: ${fault.cause}` : "";
  const where = at("store-fault");
  if (where.textContent !== said) where.textContent = said;
  where.className = of.breaker_open ? "bad" : "dim";
  where.hidden = !fault;
  const seals = of.sealing_keys.find((key) => key.seals);
  const opened = of.sealing_keys.map((key) => `${key.number}: ${number(key.opened)}`).join(" · ");
  fill(at("store-figures"), [
    figure("State", pill(...states[of.state])),
    figure("Since", ago(of.since, now)),
    figure("Breaker", of.breaker_open ? "open" : "closed"),
    figure("Breaker opened", counted(of.breaker_opened, "time")),
    figure("Engine", of.engine ?? "–"),
    ...(of.master ? [figure("Master", of.master)] : []),
    figure("Sealing keys", seals ? `${of.sealing_keys.length}, number ${seals.number} seals` : "–"),
    figure("Tokens read, by key", opened),
  ]);
}
