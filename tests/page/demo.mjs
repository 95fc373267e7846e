// The page that `boldgate demo` writes for developers, in headless Chromium at an address of their own.
// tests/it/embed/browser.rs starts the demo and serves the page; the first argument is JSON: the page's
// address as the demo knows it, and as another origin.
import { chromium } from "playwright-core";

const { own, other, screenshot } = JSON.parse(process.argv[2]);
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

console.log(JSON.stringify({
  own: await shown(own, (page) => page.waitForSelector("#dashboard[data-rendered]")),
  other: await shown(other, async (page, errors) => {
    while (errors.length === 0) await page.waitForTimeout(20);
  }),
}));
await browser.close();
