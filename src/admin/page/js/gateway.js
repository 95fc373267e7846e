// Reading from the gateway, and acting on it. The token is in this variable and nowhere else.
let token = "";
const READ_TIMEOUT_MS = 10000;
const ACT_TIMEOUT_MS = 90000;

/** The gateway wants a token. */
class Unauthorized extends Error {}
/** The gateway has responded, with a status that says why there is no answer. */
class Failed extends Error {}

const credentials = () => (token ? { Authorization: `Bearer ${token}` } : {});

async function read(path) {
  const response = await fetch(path, { headers: credentials(), signal: AbortSignal.timeout(READ_TIMEOUT_MS) });
  if (response.status === 401) throw new Unauthorized(path);
  if (!response.ok) {
    const { error, hint } = await response.json().catch(() => ({}));
    throw new Failed([`The gateway responds with ${response.status}: ${error ?? path}.`, hint && `To do: ${hint}.`].filter(Boolean).join(" "));
  }
  return response.json();
}

/** Asks for the token in a dialog. False if the user does not give one. */
function askForToken(text) {
  const dialog = at("ask");
  if (dialog.open) return Promise.resolve(false);
  at("ask-text").textContent = text;
  at("token").value = "";
  dialog.showModal();
  at("token").focus();
  return new Promise((given) => {
    let answer = false;
    at("ask-form").onsubmit = (event) => {
      event.preventDefault();
      token = at("token").value.trim();
      at("token").value = "";
      answer = token !== "";
      dialog.close();
    };
    dialog.onclose = () => given(answer);
  });
}

/** Asks in a dialog whether to do something. */
function confirmed(title, text, word) {
  at("confirm-title").textContent = title;
  at("confirm-text").textContent = text;
  at("confirm-yes").textContent = word;
  const dialog = at("confirm");
  dialog.showModal();
  return new Promise((given) => {
    let answer = false;
    at("confirm-form").onsubmit = (event) => {
      event.preventDefault();
      answer = true;
      dialog.close();
    };
    dialog.onclose = () => given(answer);
  });
}

function say(text, kind) {
  const where = at("details").open ? at("details-said") : at("said");
  where.textContent = text;
  where.className = `said ${kind}`;
}

const ACTIONS = {
  "refresh-token": {
    title: (of) => `Refresh the token of ${of.tenant}?`,
    text: "One exchange with Bold BI gets a new token for the tenant's own user. Requests go on meanwhile.", word: "Refresh",
  },
  "drop-tokens": {
    title: (of) => `Drop all tokens of ${of.tenant}?`,
    text: "The next request of each user waits for an exchange with Bold BI.", word: "Drop",
  },
  "disable-tenant": {
    title: (of) => `Disable ${of.tenant}?`,
    text: "All its requests are refused with 503 until it is enabled again. Without a token store, a restart ends that too.", word: "Disable",
  },
  "enable-tenant": { title: (of) => `Enable ${of.tenant}?`, text: "Its requests are served again.", word: "Enable" },
  reload: {
    title: () => "Reload the configuration?",
    text: "All files are read and checked again, and applied as a whole or not at all.", word: "Reload",
  },
  "log-level": {
    title: (of) => (of.level ? `Set the log level to ${of.level}?` : "Return to the configured log level?"),
    text: "It holds until it is set again, or the gateway restarts.", word: "Set",
  },
};

async function post(action, body) {
  const response = await fetch(`api/v1/actions/${action}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Boldgate-Action": action, ...credentials() },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(ACT_TIMEOUT_MS),
  });
  const reply = await response.json().catch(() => ({}));
  return { status: response.status, reply };
}

/** Does an action that the user confirms, and says how it ended. */
async function act(action, body) {
  const { title, text, word } = ACTIONS[action];
  if (!await confirmed(title(body), text, word)) return;
  if (needsToken && !token && !await askForToken("Acting needs the token of `admin.token_file`.")) return;
  say("Under way …", "");
  try {
    let done = await post(action, body);
    if (done.status === 401) {
      token = "";
      if (!await askForToken("The gateway refused the token, or wants one. It is in `admin.token_file`.")) {
        return say("Nothing was done: the gateway wants a token.", "bad");
      }
      done = await post(action, body);
    }
    if (done.status === 401) token = "";
    const { outcome, message, error, hint } = done.reply;
    if (outcome === "success") say(message ?? "Done.", "good");
    else say([error ?? `The gateway responds with ${done.status}.`, hint].filter(Boolean).join(" "), "bad");
  } catch {
    say("The gateway has not responded. Look at its log before you try again.", "bad");
  }
  refresh();
}
