// The page that `boldgate demo` writes for developers, in headless Chromium at an address of their own.
// tests/it/embed/browser.rs starts the demo and serves the page; the first argument is JSON: the page's
// address as the demo knows it, and as another origin, and the demo's page in masked mode.
import { chromium } from "playwright-core";

const { own, other, masked, screenshot } = JSON.parse(process.argv[2]);
const browser = await chromium.launch({ executablePath: process.env.BOLDGATE_TEST_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** The text in the container of the dashboard, and what was reported. */
async function shown(address, isReady) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(address);
  await isReady(page, errors);
  const text = await page.textContent("#dashboard");
  if (screenshot && address === own) await page.screenshot({ path: screenshot });
  await page.close();
  return { text, errors };
}

/** The page in masked mode, before and after a user signs in, and all that went to and from it. */
async function shownMasked() {
  const page = await browser.newPage();
  const traffic = [];
  page.on("request", (request) => traffic.push(JSON.stringify(request.headers()) + (request.postData() ?? "")));
  page.on("response", async (response) => traffic.push(await response.text().catch(() => "")));
  await page.goto(masked);
  await page.waitForFunction(() => document.getElementById("dashboard").textContent.includes("BoldBI Embedded:"));
  const before = await page.textContent("#dashboard");
  await page.click("text=Sign in as Joe");
  await page.waitForSelector("#dashboard[data-rendered]");
  const text = await page.textContent("#dashboard");
  if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-masked.png") });
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage, cookie: document.cookie }));
  await page.close();
  return { before, text, kept, traffic };
}

console.log(JSON.stringify({
  masked: await shownMasked(),
  own: await shown(own, (page) => page.waitForSelector("#dashboard[data-rendered]")),
  other: await shown(other, async (page, errors) => {
    while (errors.length === 0) await page.waitForTimeout(20);
  }),
}));
await browser.close();
