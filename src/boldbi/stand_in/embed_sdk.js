// A stand-in for Bold BI's embed SDK, served by the pretend Bold BI of boldgate. It has none of the SDK's code: it
// takes the options of pages with an authorization server, a token or masked mode, makes the call that the SDK makes,
// and draws who the dashboard would be shown to. The real one is at https://cdn.boldbi.com/embedded-sdk/.
(() => {
  "use strict";

  const query = (options) => {
    const now = Math.floor(Date.now() / 1000);
    const path = options.dashboardPath ?? "";
    return `embed_nonce=${crypto.randomUUID()}&embed_dashboard_id=${options.dashboardId ?? ""}&embed_dashboard_ids=`
      + `&embed_dashboard_path=${path}&embed_dashboard_paths=&pinboard_name=&embed_mode=${options.mode ?? "view"}`
      + `&embed_timestamp=${now}&embed_expirationtime=${options.expirationTime ?? 86400}`;
  };

  const claims = (token) => {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(atob(part));
  };

  class StandIn {
    constructor(options) {
      this.options = options;
    }

    get container() {
      const found = document.getElementById(this.options.embedContainerId);
      if (!found) throw new Error(`no element has the id ${this.options.embedContainerId}`);
      return found;
    }

    loadDashboard() {
      const { authorizationServer, embedToken, token, enableDomainMasking } = this.options;
      const given = embedToken ?? token;
      if (enableDomainMasking) {
        this.mask(given ?? authorizationServer).catch((error) => this.show(`BoldBI Embedded:${error.message}`));
      } else if (given) {
        this.draw({ token: given, name: "a dashboard", rows: "those of the token" });
      } else {
        this.authorize(authorizationServer).catch((error) => this.show(`BoldBI Embedded:${error.message}`));
      }
    }

    // Bold BI's own scripts ask for the data of a dashboard so, and for more.
    async mask(other) {
      if (other) throw new Error("masked mode has neither a token nor an authorization server");
      const response = await fetch(`${this.options.serverUrl}/v1.0/design/loadwidgetdata`, {
        method: "POST",
        headers: { "Content-Type": "application/json", ClientID: crypto.randomUUID(), Mode: "view" },
        body: JSON.stringify({ dashboardId: this.options.dashboardId }),
      });
      if (!response.ok) throw new Error(response.statusText);
      const { user } = await response.json();
      this.show(`A stand-in draws here what Bold BI would\nuser: ${user}\nrows: all that the user may see\n`
        + "the page has no token");
      this.container.dataset.rendered = "true";
      this.options.onActionComplete?.({ eventType: "dashboardRendered" });
    }

    async authorize({ url, headers = {} }) {
      const text = query(this.options);
      const api = this.options.serverUrl.replace(/\/bi(?=\/|$)/, "/bi/api");
      const response = await fetch(url, {
        method: "POST",
        headers: { ...headers, "Content-type": "application/json" },
        body: JSON.stringify({ embedQuerString: text, embedQueryString: text, dashboardServerApiUrl: api }),
      });
      // As the SDK: the reason phrase alone is shown.
      if (!response.ok) throw new Error(response.statusText);
      const reply = await response.json();
      if (!reply.Status) throw new Error(reply.Message);
      const { access_token: granted, ItemDetail, StandInFilter } = reply.Data;
      const detail = ItemDetail ? JSON.parse(ItemDetail) : { Name: "the dashboards of the user" };
      this.draw({ token: granted, name: detail.Name, rows: StandInFilter || "all that the user may see" });
    }

    draw({ token, name, rows }) {
      const { email, exp } = claims(token);
      this.show(`A stand-in draws here what Bold BI would: ${name}\nuser: ${email ?? "unknown"}\nrows: ${rows}\n`
        + `the token ends: ${new Date(exp * 1000).toISOString()}`);
      this.container.dataset.rendered = "true";
      this.options.onActionComplete?.({ eventType: "dashboardRendered" });
    }

    show(text) {
      const shown = document.createElement("pre");
      shown.textContent = text;
      this.container.replaceChildren(shown);
    }

    destroy() {
      this.container.replaceChildren();
    }
  }

  window.BoldBI = { create: (options) => new StandIn(options) };
})();
