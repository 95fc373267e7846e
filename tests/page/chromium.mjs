// Headless Chromium for the tests about embedding. Playwright's own interception would answer the preflights of all
// requests of a page in the place of the server; this one touches no request but those that it responds to.
import { chromium } from "playwright-core";

/** A browser that knows no host but this machine. */
export const launch = () => chromium.launch({
  executablePath: process.env.BOLDGATE_TEST_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"],
});

/** Gives a page what `respond` makes of each request that one of these patterns of `Fetch.enable` describes. */
export async function fulfil(page, patterns, respond) {
  const session = await page.context().newCDPSession(page);
  session.on("Fetch.requestPaused", async ({ requestId, request }) => {
    const { status = 200, headers = {}, body = "" } = await respond(request);
    const responseHeaders = Object.entries(headers).map(([name, value]) => ({ name, value }));
    const response = { requestId, responseCode: status, responseHeaders, body: Buffer.from(body).toString("base64") };
    // The page may have been closed in the meantime.
    await session.send("Fetch.fulfillRequest", response).catch(() => {});
  });
  await session.send("Fetch.enable", { patterns });
}
