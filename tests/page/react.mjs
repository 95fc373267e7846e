// The React component of docs/embedding.md in headless Chromium. tests/it/embed/browser.rs starts a gateway, a stand-in
// with its file in place of the SDK, and a site; the first argument is JSON: their addresses, and the document.
// The clock of the page is the test's.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch } from "./chromium.mjs";

const { document: file, site, tokens, boldBi, sdk, jwt, dashboards } = JSON.parse(process.argv[2]);
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const { resolve } = createRequire(import.meta.url);
const browser = await launch();

/** A text with each of these parts, which occur once, replaced. */
function edited(text, parts) {
  for (const [part, by] of parts) {
    if (text.split(part).length !== 2) throw new Error(`${file} has \`${part}\` not exactly once in the component`);
    text = text.replace(part, () => by);
  }
  return text;
}

const [, written] = readFileSync(file, "utf8").match(/^```jsx\n(import [^]*?)^```$/m);
const component = edited(written, [
  ["import { useId, useLayoutEffect } from \"react\";", "const { createElement, useId, useLayoutEffect } = require(\"react\");"],
  ["export function Dashboard", "window.Dashboard = Dashboard;\nfunction Dashboard"],
  ["<div id={container} style={{ height: \"600px\" }} />", "createElement(\"div\", { id: container, style: { height: \"600px\" } })"],
  ["\"https://gateway.example.com/bi/api/site/site1/boldgate/embed/token\"", JSON.stringify(tokens)],
  ["\"https://bi.example.com/bi/site/site1\"", JSON.stringify(boldBi)],
]);

/** React's modules, which warn of mistakes, and the component, in one script. */
function script() {
  const files = {
    "react": "react/cjs/react.development.js",
    "react-dom": "react-dom/cjs/react-dom.development.js",
    "react-dom/client": "react-dom/cjs/react-dom-client.development.js",
    "scheduler": "scheduler/cjs/scheduler.development.js",
  };
  // The packages export no such paths.
  const folder = resolve("react/package.json").replace(/react\/package\.json$/, "");
  const modules = Object.entries(files).map(([name, path]) =>
    `${JSON.stringify(name)}: (require, exports, module) => {\n${readFileSync(folder + path, "utf8")}\n}`);
  return `(() => {
    const process = { env: { NODE_ENV: "development" } }, loaded = {};
    const sources = {${modules.join(",\n")}};
    const require = (name) => {
      if (!loaded[name]) {
        const module = loaded[name] = { exports: {} };
        sources[name](require, module.exports, module);
      }
      return loaded[name].exports;
    };
    window.React = require("react");
    window.createRoot = require("react-dom/client").createRoot;
    ${component}
  })();`;
}

/** Counts what a page does, and mounts the component as an application does. */
function application({ jwt }) {
  window.counts = { asked: 0, created: 0, destroyed: 0 };
  window.credential = jwt;
  const { create } = BoldBI;
  BoldBI.create = (options) => {
    counts.created += 1;
    const instance = create.call(BoldBI, options);
    const { destroy } = instance;
    instance.destroy = () => {
      counts.destroyed += 1;
      destroy.call(instance);
    };
    return instance;
  };
  const getJwt = async () => {
    counts.asked += 1;
    await window.gate;
    if (!window.credential) throw new Error("signed out");
    return window.credential;
  };
  const root = createRoot(document.getElementById("root"));
  // Strict mode runs each effect twice, as a component that is mounted, unmounted and mounted again.
  window.show = (id) => root.render(React.createElement(React.StrictMode, null, React.createElement(Dashboard, { id, getJwt })));
  window.unmount = () => root.unmount();
}

const page = await browser.newPage();
const errors = [];
page.on("pageerror", (error) => errors.push(error.message));
page.on("console", (message) => { if (["error", "warning"].includes(message.type())) errors.push(message.text()); });
const start = new Date();
await page.clock.install({ time: start });
await page.clock.pauseAt(start.getTime() + MINUTE);
await page.goto(site);
await page.evaluate(() => { document.body.innerHTML = '<div id="root"></div>'; });
await page.addScriptTag({ url: sdk });
await page.addScriptTag({ content: script() });
await page.evaluate(application, { jwt });

const steps = {};
/** Notes what the page shows and has done, once `isDone` of its counts and of the errors so far. */
async function note(name, isDone) {
  const seen = () => page.evaluate(() => ({ ...counts, text: document.getElementById("root").innerText }));
  for (const end = Date.now() + MINUTE; !isDone(await seen(), errors.length); ) {
    if (Date.now() > end) throw new Error(`${name}: not within a minute: ${JSON.stringify({ ...await seen(), steps, errors })}`);
    await new Promise((ended) => { setTimeout(ended, 20); });
  }
  steps[name] = { ...await seen(), errors: errors.splice(0) };
}
/** Lets time pass as in a computer that sleeps: each timer ends once at most, when it has passed. */
const pass = (time) => page.clock.fastForward(time);
const signIn = (jwt) => page.evaluate((jwt) => { window.credential = jwt; }, jwt);
const show = (id) => page.evaluate((id) => show(id), id);

await show(dashboards[0]);
await note("mounted", ({ text }) => text.includes("user:"));
await pass(DAY - 6 * MINUTE);
await note("before its time", () => true);
await signIn("");
await pass(2 * MINUTE);
await note("signed out", (_, errors) => errors > 0);
await signIn("x");
await pass(MINUTE);
// The browser tells of the response as well.
await note("refused", (_, errors) => errors > 1);
await signIn(jwt);
await pass(MINUTE);
await note("embedded again", ({ created, text }) => created > 1 && text.includes("user:"));
await show(dashboards[1]);
await note("another dashboard", ({ created, text }) => created > 2 && text.includes("user:"));
await pass(3 * DAY);
await note("after a long sleep", ({ created, text }) => created > 3 && text.includes("user:"));
const open = await page.evaluateHandle(() => {
  const { promise, resolve } = Promise.withResolvers();
  window.gate = promise;
  return { open: resolve };
});
await pass(DAY);
const response = page.waitForResponse(tokens);
await page.evaluate(({ open }) => {
  window.unmount();
  open();
}, open);
await (await response).finished();
await pass(DAY);
await note("unmounted", () => true);
console.log(JSON.stringify({ steps, errors }));
await browser.close();
