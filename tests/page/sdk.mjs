// Bold BI's own embed SDK, unmodified, in headless Chromium. tests/it/embed/real_sdk.rs starts what it needs; the first
// argument is JSON: the folder and the versions of the SDK, and the addresses of `boldgate demo` or of a gateway and
// two sites. Bold BI's own scripts, which the SDK loads, are stubs: the one that would draw notes the options of its
// call, and asks for data.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { fulfil, launch } from "./chromium.mjs";

const { folder, versions, screenshots, demo, tokens } = JSON.parse(process.argv[2]);
const jquery = readFileSync(createRequire(import.meta.url).resolve("jquery/dist/jquery.min.js"), "utf8");
const dashboardId = "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff";
const user = "jane@acme.example";
const WAIT = 60_000;
const browser = await launch();

/** The files of a version in one script, each as the CommonJS module that it is. */
function bundle(version) {
  const root = `${folder}/v${version}/dist`;
  const files = readdirSync(root, { recursive: true }).map(String).filter((file) => file.endsWith(".js"));
  const modules = files.map((file) =>
    `${JSON.stringify(`/${file}`)}: (require, exports, module) => {\n${readFileSync(`${root}/${file}`, "utf8")}\n}`);
  return `(() => {
    const sources = {${modules.join(",\n")}}, loaded = {};
    const load = (path) => {
      if (!loaded[path]) {
        const module = loaded[path] = { exports: {} };
        const from = new URL(path, "file:");
        const required = (name) => name === "jquery/jquery.js" ? window.jQuery : load(new URL(name + ".js", from).pathname);
        sources[path](required, module.exports, module);
      }
      return loaded[path].exports;
    };
    window.BoldBI = load("/index.js").BoldBI;
  })();`;
}

/** What Bold BI's own scripts define. The call that would draw a dashboard asks for its data first. */
const stub = `
  window.BoldBIDashboard ??= { createObject() {}, Designer: {} };
  window.Designer ??= {};
  window.drawn ??= [];
  window.BoldBIDashboardDesigner ??= async (container, options) => {
    const service = options.dataServiceUrl ?? options.serviceUrl;
    const own = Object.entries(options).filter(([, value]) => ["string", "boolean"].includes(typeof value));
    const headers = { "Content-Type": "application/json", ClientID: "a", DashboardPath: options.dashboardPath, Mode: "view" };
    if (options.serviceAuthorizationToken) headers.Authorization = options.serviceAuthorizationToken;
    const urls = [options.serviceUrl, options.dataServiceUrl, options.dashboardServiceUrl,
      ...Object.values(options).map((value) => value?.serviceUrl)].filter((url) => typeof url === "string");
    const base = urls.find((url) => url.endsWith("/v1.0/design")) ?? urls[0] + "/v1.0/design";
    const data = window.masked ? await fetch(base + "/loadwidgetdata", { method: "POST", headers, body: "{}" }) : null;
    window.drawn.push({ options: Object.fromEntries(own), urls, status: data?.status, data: await data?.text() });
    const text = document.createElement("pre");
    text.textContent = JSON.stringify(window.drawn.at(-1), null, 1).slice(0, 3000);
    document.getElementById("dashboard").append(text);
  };`;

/** The stubs, and the SDK at the address that the pages of the demo load it from. */
async function script(version, { url }) {
  const { pathname } = new URL(url);
  const isScript = pathname.endsWith(".js");
  const isSdk = pathname.startsWith("/embedded-sdk/");
  const body = isSdk ? bundle(version) : /jquery-\d/.test(pathname) ? jquery : isScript ? stub : "";
  return { headers: { "Content-Type": isScript ? "text/javascript" : "text/css", "Access-Control-Allow-Origin": "*" }, body };
}

/** The response of Bold BI's API, which pages of any origin may read, unlike that of the stand-in. */
async function api({ url, method, headers }) {
  const cors = { "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "authorization, content-type" };
  if (method === "OPTIONS") return { status: 204, headers: cors };
  const response = await fetch(url, { headers: { Authorization: headers.Authorization } });
  return { status: response.status, headers: { ...cors, "Content-Type": "application/json" }, body: await response.text() };
}

/** A page with one version, opened by `open`: what was drawn, what the page shows, and all that went to and from it. */
async function shown(version, way, open, isMasked = false) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const traffic = [];
  page.on("request", (request) => traffic.push(`${request.url()} ${JSON.stringify(request.headers())} ${request.postData() ?? ""}`));
  page.on("response", async (response) => {
    const isFile = /\.(js|css)($|\?)/.test(response.url());
    if (!isFile) traffic.push(`${response.url()} ${response.status()} ${await response.text().catch(() => "")}`);
  });
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  const files = ["Script", "Stylesheet"].map((resourceType) => ({ urlPattern: "*", resourceType }));
  await fulfil(page, [...files, { urlPattern: "*/bi/api/*/v5.0/dashboards/*" }], (request) =>
    request.url.includes("/v5.0/dashboards/") ? api(request) : script(version, request));
  await page.addInitScript((masked) => { window.masked = masked; }, isMasked);
  await open(page).catch((error) => errors.push(error.message));
  const isDone = () => page.evaluate(() => window.drawn?.length > 0 || document.body.innerText.includes("BoldBI Embedded:"));
  for (const end = Date.now() + WAIT; errors.length === 0 && !(await isDone()); ) {
    if (Date.now() > end) errors.push("nothing was drawn in time");
    await new Promise((ended) => { setTimeout(ended, 50); });
  }
  const drawn = await page.evaluate(() => window.drawn ?? []);
  const text = await page.evaluate(() => document.getElementById("dashboard").innerText);
  if (screenshots) await page.screenshot({ path: `${screenshots}/sdk-${version}-${way}.png` });
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  await context.close();
  return { version, drawn, text: text.slice(0, 500), errors, kept, traffic };
}

/** The demo's own page, which loads the SDK itself. */
const masked = (page) => page.goto(`${demo.application}/sign-in/${user}`);

/** A page at `site` with an empty container and the SDK. */
async function empty(page, version, site) {
  await page.goto(site);
  await page.evaluate(() => { document.body.innerHTML = '<div id="dashboard" style="height: 600px"></div>'; });
  // Later versions load it themselves.
  if (version.startsWith("4.")) await page.addScriptTag({ content: jquery });
  await page.addScriptTag({ content: bundle(version) });
}

const authorized = (version) => async (page) => {
  await empty(page, version, demo.application);
  await page.evaluate(async ({ demo, dashboardId, user }) => {
    const jwt = await (await fetch(`/jwt/${user}`)).text();
    BoldBI.create({
      serverUrl: `${demo.boldBi}/site/site1`,
      dashboardId,
      embedContainerId: "dashboard",
      authorizationServer: { url: demo.authorize, headers: { Authorization: `Bearer ${jwt}` } },
    }).loadDashboard();
  }, { demo, dashboardId, user });
};

/** As docs/embedding.md has it for the token URL; the option is of version 12.1, and before that `token` of 7.10. */
const byToken = (version, site) => async (page) => {
  await empty(page, version, site);
  const option = Number(version.split(".")[0]) >= 12 ? "embedToken" : "token";
  await page.evaluate(async ({ tokens, dashboardId, option }) => {
    const response = await fetch(tokens.url, {
      method: "POST",
      headers: { Authorization: `Bearer ${tokens.jwt}`, "Content-Type": "application/json" },
      body: JSON.stringify({ dashboardId }),
    });
    if (!response.ok) throw new Error(`the gateway responds with ${response.status}`);
    const token = await response.text();
    BoldBI.create({ serverUrl: tokens.serverUrl, dashboardId, embedContainerId: "dashboard", [option]: token }).loadDashboard();
  }, { tokens, dashboardId, option });
};

const results = { masked: [], authorized: [], token: [], stranger: [] };
for (const version of versions) {
  if (demo) {
    results.authorized.push(await shown(version, "authorized", authorized(version)));
    // The option is of version 10.1 and later.
    if (Number(version.split(".")[0]) > 10) results.masked.push(await shown(version, "masked", masked, true));
  }
  if (tokens) {
    results.token.push(await shown(version, "token", byToken(version, tokens.listed)));
    results.stranger.push(await shown(version, "stranger", byToken(version, tokens.other)));
  }
}
console.log(JSON.stringify(results));
await browser.close();
