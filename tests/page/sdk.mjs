// Bold BI's own embed SDK, unmodified, in headless Chromium at the pages of `boldgate demo`. tests/it/embed/sdk.rs
// starts the demo; the first argument is JSON: the demo's addresses, the versions, and the folder of the SDK. Bold BI's
// own scripts, which the SDK loads, are stubs: the one that would draw notes the options of its call, and asks for data.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { application, boldBi, authorize, folder, versions, screenshots } = JSON.parse(process.argv[2]);
const jquery = readFileSync(createRequire(import.meta.url).resolve("jquery/dist/jquery.min.js"), "utf8");
const user = "jane@acme.example";
const WAIT = 60_000;
const browser = await chromium.launch({ executablePath: process.env.BOLDGATE_TEST_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

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

/** One page with one version: what was drawn, what the page shows, and all that went to and from it. */
async function shown(version, masked) {
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
  const isFile = (url) => !url.pathname.startsWith("/bi/api/") && /\.(js|css)$/.test(url.pathname);
  // Maps of others, which the SDK loads.
  await page.route((url) => url.hostname !== "127.0.0.1", (route) => route.abort());
  await page.route(isFile, (route) => {
    const { pathname } = new URL(route.request().url());
    const isScript = pathname.endsWith(".js");
    const body = /jquery-\d/.test(pathname) ? jquery : isScript ? stub : "";
    return route.fulfill({ contentType: isScript ? "text/javascript" : "text/css", body, headers: { "Access-Control-Allow-Origin": "*" } });
  });
  await page.route("**/embedded-sdk/**", (route) => route.fulfill({ contentType: "text/javascript", body: bundle(version) }));
  await page.addInitScript((masked) => { window.masked = masked; }, masked);
  if (masked) {
    // The demo's own page, with the SDK in place of the stand-in's file.
    await page.goto(`${application}/sign-in/${user}`);
  } else {
    await page.goto(application);
    await page.evaluate(() => { document.body.innerHTML = '<div id="dashboard" style="height: 600px"></div>'; });
    // Later versions load it themselves.
    if (version.startsWith("4.")) await page.addScriptTag({ content: jquery });
    await page.addScriptTag({ content: bundle(version) });
    await page.evaluate(async ({ boldBi, authorize, user }) => {
      const jwt = await (await fetch(`/jwt/${user}`)).text();
      BoldBI.create({
        serverUrl: `${boldBi}/site/site1`,
        dashboardId: "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff",
        embedContainerId: "dashboard",
        authorizationServer: { url: authorize, headers: { Authorization: `Bearer ${jwt}` } },
      }).loadDashboard();
    }, { boldBi, authorize, user });
  }
  await page.waitForFunction(() => window.drawn?.length > 0 || document.body.innerText.includes("BoldBI Embedded:"), null, { timeout: WAIT })
    .catch((error) => errors.push(error.message));
  const drawn = await page.evaluate(() => window.drawn ?? []);
  const text = await page.evaluate(() => document.getElementById("dashboard").innerText);
  if (screenshots) await page.screenshot({ path: `${screenshots}/sdk-${version}-${masked ? "masked" : "authorized"}.png` });
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  await context.close();
  return { version, drawn, text: text.slice(0, 500), errors, kept, traffic };
}

const results = { masked: [], authorized: [] };
for (const version of versions) {
  results.authorized.push(await shown(version, false));
  // The option is of version 10.1 and later.
  if (Number(version.split(".")[0]) > 10) results.masked.push(await shown(version, true));
}
console.log(JSON.stringify(results));
await browser.close();
