// The status page in headless Chromium. tests/it/page.rs starts the gateways and this script, whose
// first argument is JSON: the URLs of the gateways, the folder for screenshots, the sizes.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { three, every, many, acting, token, folder, widths, schemes } = JSON.parse(process.argv[2]);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(folder, { recursive: true });
let checks = 0;

function assert(holds, words) {
  checks += 1;
  if (!holds) throw new Error(words);
}

function equal(found, expected, words) {
  const [one, other] = [found, expected].map((value) => JSON.stringify(value));
  assert(one === other, `${words}: found ${one}, expected ${other}`);
}

const browser = await chromium.launch({ executablePath: process.env.BOLDGATE_TEST_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** Opens the page, does `visit`, and checks that the browser had nothing to object to. */
async function open(url, { width = 1600, scheme = "light", prepare, allowed = [] }, visit) {
  const context = await browser.newContext({ viewport: { width, height: 1000 }, colorScheme: scheme, locale: "en-GB", timezoneId: "UTC" });
  const page = await context.newPage();
  const objections = [];
  const foreign = [];
  page.on("pageerror", (error) => objections.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) objections.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) foreign.push(request.url());
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(event.violatedDirective));
  });
  await prepare?.(page);
  await page.goto(url);
  const result = await visit(page, context);
  equal(await page.evaluate(() => globalThis.violations), [], "violations of the content security policy");
  equal(foreign, [], "requests to other origins");
  equal(objections.filter((text) => !allowed.some((part) => text.includes(part))), [], "errors of the browser");
  await context.close();
  return result;
}

const loaded = async (page) => {
  await page.waitForFunction(() => document.querySelectorAll("#tenant-rows tr").length > 0
    && document.querySelectorAll("#config-sections details").length > 0);
};

/** No rule of axe-core is violated, with those on best practice. */
async function accessible(page, words) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const all = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
  equal(all, [], `violations found by axe-core, ${words}`);
}

async function fits(page, words) {
  const [needed, there] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert(needed <= there, `${words}: the page is ${needed} px wide in a window of ${there} px`);
  const cut = await page.evaluate(() => [...document.querySelectorAll(".wide, .pill, dd")]
    .filter((of) => of.scrollWidth > of.clientWidth && of.clientWidth > 0).map((of) => of.ariaLabel ?? of.textContent));
  equal(cut, [], `${words}: parts that are cut`);
}

const texts = (page, selector) => page.locator(selector).allTextContents();
const names = (page) => texts(page, "#tenant-rows .name");
const focused = (page) => page.evaluate(() => {
  const of = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(of);
  return { id: of.id, text: of.textContent.trim().slice(0, 40), name: of.tagName, outlined: outlineStyle !== "none" && outlineWidth !== "0px" };
});

async function everySize() {
  for (const [name, url] of [["3", three], ["every-state", every], ["5000", many]].filter(([, url]) => url)) {
    for (const width of widths) {
      for (const scheme of schemes) {
        const words = `${name}, ${width} px, ${scheme}`;
        await open(url, { width, scheme }, async (page) => {
          await loaded(page);
          await fits(page, words);
          await accessible(page, words);
          await page.screenshot({ path: `${folder}/${name}-${width}-${scheme}.png`, fullPage: true });
          await page.locator("#tenant-rows .link").first().click();
          await page.waitForFunction(() => document.getElementById("details-config").textContent.includes("server:"));
          await fits(page, `${words}, details`);
          await accessible(page, `${words}, details`);
          await page.screenshot({ path: `${folder}/${name}-${width}-${scheme}-details.png` });
        });
        console.log(`looked at ${words}`);
      }
    }
  }
}

/** Each state of the gateway is on the page in words. */
async function everyState() {
  await open(every, {}, async (page) => {
    await loaded(page);
    for (const section of await page.locator("#config-sections summary").all()) await section.click();
    const text = await page.evaluate(() => document.body.innerText);
    for (const words of [
      "failing", "warning", "✓ ok", "✕ failing", "the credential was refused", "disabled by an operator", "○ disabled",
      "secret unreadable", "never used", "✕ The breaker is open", "ejected", "it cannot be connected to", "Requests a second",
      "3 days", "certificate_file", "gw.example", "✓ fixed", "✕ no keys", "Connection refused", "applied", "✕ refused",
      "tenants.acme.site: found", "generation 2", "the log level is debug", "max_connections: 1024", "callers required",
      "API key", "caller batch", "▲ away", "Breaker opened", "(ui: pass): 3 static files, 0 data requests", "1, number 1 seals", "the token store cannot be used since", "embed_secret · azure_ad", "password · local",
    ]) assert(text.includes(words), `the page shows \`${words}\`; it shows ${text}`);
    assert(await page.locator("#tenant-rows .spark").count() > 0, "a tenant has a sparkline");
    assert(await page.locator("#server-cards .spark").count() >= 2, "a server has sparklines");
  });
}

async function keyboard() {
  await open(every, {}, async (page) => {
    await loaded(page);
    await page.keyboard.press("Tab");
    equal((await focused(page)).text, "Skip to the tenants", "the first stop");
    const seen = [];
    for (let presses = 0; presses < 120; presses += 1) {
      await page.keyboard.press("Tab");
      const now = await focused(page);
      if (now.name === "BODY") break;
      assert(now.outlined, `the focus is visible on ${now.name} ${now.text}`);
      seen.push(now.id || now.text);
    }
    for (const stop of ["Overview", "search", "state", "sort", "Tenant", "acme", "callers"]) {
      assert(seen.some((one) => one.startsWith(stop)), `the keyboard reaches ${stop}: ${seen.join(", ")}`);
    }
    await page.locator("#tenants th button").first().focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("th[aria-sort='descending']"));
    await page.locator("#tenant-rows .link").first().focus();
    const name = (await focused(page)).text;
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("details").open);
    equal(await page.locator("#details-title").textContent(), name, "the details are of that tenant");
    await page.keyboard.press("Escape");
    assert(!await page.evaluate(() => document.getElementById("details").open), "Escape closes the details");
    equal((await focused(page)).text, name, "the focus returns");
    // It stays through the next rounds.
    await page.waitForTimeout(6000);
    equal((await focused(page)).text, name, "a new reading does not move the focus");
  });
}

async function searchSortAndPages() {
  await open(many, {}, async (page) => {
    await loaded(page);
    const first = await names(page);
    equal([first.length, await page.locator("#position").textContent()], [50, "Page 1 of 100 · 5,000 tenants"], "the first page");
    await page.locator("#next").click();
    await page.waitForFunction(() => document.getElementById("position").textContent.startsWith("Page 2"));
    const second = await names(page);
    assert(first.every((name) => !second.includes(name)), "the second page has other tenants");
    await page.locator("#search").fill("T123");
    await page.waitForFunction(() => document.getElementById("position").textContent === "Page 1 of 1 · 10 tenants");
    assert((await names(page)).every((name) => name.startsWith("t123")), "the search finds by name");
    await page.locator("th[data-sort='name'] button").click();
    await page.waitForFunction(() => document.querySelector("#tenant-rows .name")?.textContent === "t1239");
    await page.locator("#search").fill("no such tenant");
    await page.waitForFunction(() => document.getElementById("tenant-rows").textContent === "No tenant matches.");
    await page.locator("#search").fill("");
    await page.locator("#state").selectOption("ok");
    await page.waitForFunction(() => document.querySelector("#tenant-rows .pill.ok"));
    assert((await texts(page, "#tenant-rows .pill")).every((text) => text === "✓ ok"), "the filter keeps one state");
    await page.locator("#figures [data-state='never_used']").click();
    await page.waitForFunction(() => document.querySelector("#tenant-rows .pill")?.textContent === "○ never used");
    equal(await page.locator("#state").inputValue(), "never_used", "a count filters");
    await page.locator("#sort").selectOption("-requests");
    await page.waitForFunction(() => document.querySelector("th[data-sort='requests']").getAttribute("aria-sort") === "descending");
  });
}

async function gatewayAway() {
  await open(every, { allowed: ["ERR_FAILED", "ERR_CONNECTION", "403"] }, async (page) => {
    await loaded(page);
    await page.route("**/api/**", (route) => route.abort());
    await page.waitForFunction(() => !document.getElementById("stale").hidden, undefined, { timeout: 15000 });
    assert((await page.locator("#stale-text").textContent()).includes("does not respond"), "the page says so");
    assert(await page.evaluate(() => document.body.classList.contains("is-stale")), "old data looks old");
    assert((await names(page)).length > 0, "the last state stays");
    await accessible(page, "without a gateway");
    await page.unroute("**/api/**");
    await page.route("**/api/**", (route) => route.fulfill({ status: 403, json: { error: "no certificate", hint: "connect with one" } }));
    await page.locator("#retry").click();
    const says = "The gateway responds with 403: no certificate. To do: connect with one.";
    await page.waitForFunction((text) => document.getElementById("stale-text").textContent.startsWith(text), says);
    assert(!await page.locator("#ask[open]").isVisible(), "no token would help");
    await page.unroute("**/api/**");
    await page.locator("#retry").click();
    await page.waitForFunction(() => document.getElementById("stale").hidden);
  });
}

async function hiddenPage() {
  await open(every, {}, async (page) => {
    await loaded(page);
    const hide = (hidden) => page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { value, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    await page.waitForTimeout(500);
    let asked = 0;
    page.on("request", () => { asked += 1; });
    await page.waitForTimeout(7000);
    equal(asked, 0, "requests of a hidden page");
    await hide(false);
    await page.waitForTimeout(1000);
    assert(asked > 0, "it reads again at once");
  });
}

async function hostileTexts() {
  const text = "<img src=x onerror=\"globalThis.hit=1\"><script>globalThis.hit=1</script>";
  const prepare = (page) => page.route("**/api/v1/**", async (route) => {
    const response = await route.fetch();
    const body = (await response.text()).replaceAll(/"(name|outcome|cause|text|url|issuer|file)":"[^"]*"/g, (_, key) => `"${key}":${JSON.stringify(text)}`);
    await route.fulfill({ response, body });
  });
  await open(every, { prepare, allowed: ["404"] }, async (page) => {
    await loaded(page);
    await page.locator("#tenant-rows .link").first().click();
    await page.waitForTimeout(500);
    equal(await page.evaluate(() => [document.querySelectorAll("main img, main script, dialog img").length, globalThis.hit ?? 0]), [0, 0], "elements made of a text");
    assert((await page.locator("#servers").textContent()).includes("<img src=x"), "it is shown as text");
  });
}

const TOKEN = "token-of-an-operator";

/** With a gateway that asks for a token, and takes actions. */
async function tokenAndActions() {
  const posted = [];
  const prepare = async (page) => {
    await page.route("**/api/v1/**", async (route) => {
      const request = route.request();
      if (request.headers().authorization !== `Bearer ${TOKEN}`) {
        return route.fulfill({ status: 401, headers: { "www-authenticate": "Bearer" }, json: { outcome: "failure", error: "no credential" } });
      }
      if (request.method() === "POST") {
        const { "x-boldgate-action": action, "content-type": type, origin } = request.headers();
        posted.push({ path: new URL(request.url()).pathname, action, type, origin, body: request.postDataJSON() });
        if (action === "drop-tokens") return route.fulfill({ status: 502, json: { outcome: "failure", error: "no reply", hint: "look at Bold BI" } });
        return route.fulfill({ json: { outcome: "success", message: "acme has a new token" } });
      }
      if (!request.url().endsWith("/status")) return route.continue();
      const response = await route.fetch();
      return route.fulfill({ response, json: { ...await response.json(), actions: true, credential: "token" } });
    });
  };
  await open(every, { prepare, allowed: ["401", "502"] }, async (page, context) => {
    await page.locator("#ask[open]").waitFor();
    await accessible(page, "asking for the token");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.getElementById("stale-text").textContent === "This gateway shows its state with a token.");
    await page.waitForTimeout(6000);
    assert(!await page.locator("#ask[open]").isVisible(), "a user who has closed the dialog is not asked again");
    await page.locator("#retry").click();
    await page.locator("#ask[open]").waitFor();
    await page.locator("#token").fill("wrong");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("ask-text").textContent.includes("refused"));
    await page.locator("#token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await loaded(page);
    equal(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, document.getElementById("token").value]), [0, 0, "", ""], "the token is stored nowhere");
    equal((await context.cookies()).length, 0, "cookies");
    await page.locator("#tenant-rows .link", { hasText: "acme" }).click();
    await page.locator("[data-action='refresh-token']").click();
    await accessible(page, "confirming an action");
    await page.screenshot({ path: `${folder}/confirm.png` });
    await page.locator("#confirm [data-close]").click();
    equal(posted.length, 0, "a cancelled action is not sent");
    await page.locator("[data-action='refresh-token']").click();
    await page.locator("#confirm-yes").click();
    await page.waitForFunction(() => document.getElementById("details-said").textContent === "acme has a new token");
    await page.screenshot({ path: `${folder}/acted.png` });
    await page.locator("[data-action='drop-tokens']").click();
    await page.locator("#confirm-yes").click();
    await page.waitForFunction(() => document.getElementById("details-said").textContent === "no reply look at Bold BI");
    await page.keyboard.press("Escape");
    await page.locator("#level").selectOption("debug");
    await page.locator("[data-action='log-level']").click();
    await page.locator("#confirm-yes").click();
    await page.waitForFunction(() => document.getElementById("said").textContent !== "Under way …" && document.getElementById("said").textContent !== "");
    await page.locator("[data-action='reload']").click();
    await page.locator("#confirm-yes").click();
    await page.waitForTimeout(300);
    const origin = new URL(every).origin;
    const sent = (action, body) => ({ path: `/api/v1/actions/${action}`, action, type: "application/json", origin, body });
    equal(posted, [sent("refresh-token", { tenant: "acme" }), sent("drop-tokens", { tenant: "acme" }), sent("log-level", { level: "debug" }), sent("reload", {})], "the actions");
  });
}

/** The actions with a real gateway that takes them. */
async function realActions() {
  await open(acting, { allowed: ["401"] }, async (page) => {
    const said = async (id, words) => {
      const waited = page.waitForFunction(([of, text]) => document.getElementById(of).textContent.includes(text), [id, words], { timeout: 10000 });
      await waited.catch(async () => assert(false, `the page says \`${words}\`; it says ${await page.locator(`#${id}`).textContent()}`));
    };
    const confirm = async (action) => {
      await page.locator(`[data-action='${action}']`).click();
      await page.locator("#confirm-yes").click();
    };
    const state = async (words) => {
      const waited = page.waitForFunction((text) => document.querySelector("#tenant-rows .pill")?.textContent === text, words, { timeout: 10000 });
      await waited.catch(async () => assert(false, `the tenant is \`${words}\`; it is ${await texts(page, "#tenant-rows .pill")}`));
    };
    await loaded(page);
    await page.locator("#tenant-rows .link", { hasText: "acme" }).click();
    await confirm("refresh-token");
    await page.locator("#ask[open]").waitFor();
    await page.locator("#token").fill("not-the-token-of-this-gateway");
    await page.keyboard.press("Enter");
    await said("ask-text", "refused");
    await page.locator("#token").fill(token);
    await page.keyboard.press("Enter");
    await said("details-said", "new token");
    await confirm("drop-tokens");
    await said("details-said", "dropped");
    await confirm("disable-tenant");
    await said("details-said", "disabled");
    await state("○ disabled by an operator");
    await fits(page, "a disabled tenant");
    await page.screenshot({ path: `${folder}/disabled.png` });
    await confirm("enable-tenant");
    await said("details-said", "enabled");
    await page.keyboard.press("Escape");
    await page.locator("#level").selectOption("debug");
    await confirm("log-level");
    await said("said", "debug");
    await confirm("reload");
    await said("said", "nothing has changed");
    await page.screenshot({ path: `${folder}/reloaded.png` });
  });
}

const looks = [everySize, everyState, keyboard, ...(many ? [searchSortAndPages] : []), gatewayAway, hiddenPage, hostileTexts, tokenAndActions];
let failed = false;
for (const part of [...(acting ? [realActions] : []), ...(every ? looks : [])]) {
  try {
    const begun = Date.now();
    await part();
    console.log(`${part.name}: ok, ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  } catch (error) {
    failed = true;
    console.log(`${part.name}: FAILED: ${error.message}`);
  }
}
await browser.close();
console.log(`${checks} checks`);
process.exitCode = failed ? 1 : 0;
