// Embed calls in headless Chromium, as the recorded SDK sends them. tests/it/embed/browser.rs starts
// the gateway, two sites and this script, whose first argument is JSON: the URLs, the JWT, the calls.
import { fulfil, launch } from "./chromium.mjs";

const { listed, other, authorize, token, dashboard, jwt, calls, masked } = JSON.parse(process.argv[2]);
const browser = await launch();

/** Sends the requests from a page of `site`; each result is what the page can read. */
async function sent(site, requests) {
  const page = await browser.newPage();
  // The gateway has no pages of its own. A page of its address is what a proxy in front would serve.
  const html = { headers: { "Content-Type": "text/html" }, body: "<!DOCTYPE html>" };
  await fulfil(page, [{ urlPattern: masked.page }], async () => html);
  await page.goto(site);
  const results = await page.evaluate(async (all) => {
    const results = [];
    for (const { url, method = "POST", headers, body } of all) {
      try {
        const response = await fetch(url, { method, headers, body });
        results.push({ status: response.status, body: await response.text() });
      } catch (error) {
        results.push({ error: String(error) });
      }
    }
    return results;
  }, requests);
  await page.close();
  return results;
}

const authorization = { Authorization: `Bearer ${jwt}` };
const recorded = calls.map(({ headers, body }) => ({ url: authorize, headers: { ...headers, ...authorization }, body }));
const json = { "Content-Type": "application/json", ...authorization };
const tokens = [
  { url: token, headers: json, body: "{}" },
  { url: token, headers: { ...json, Accept: "application/json" }, body: JSON.stringify({ dashboardId: dashboard }) },
];
const failures = [
  { url: authorize, headers: { "Content-Type": "application/json" }, body: "{}" },
  { url: authorize, headers: { "Content-Type": "text/plain", ...authorization }, body: "{}" },
];
const data = masked.routes.map(({ method, url }) => ({
  method,
  url,
  headers: { Authorization: `Bearer ${masked.jwt}`, ClientID: "c", Mode: "view", Caller: "http://evil.example/bi/api/site/acme" },
  body: method === "POST" ? "{}" : undefined,
}));
console.log(JSON.stringify({
  maskedListed: await sent(listed, data),
  maskedOwn: await sent(masked.page, data),
  maskedStranger: await sent(other, data),
  recorded: await sent(listed, recorded),
  tokens: await sent(listed, tokens),
  failures: await sent(listed, failures),
  stranger: await sent(other, [recorded[0], ...tokens, failures[0], failures[1]]),
}));
await browser.close();
