"""Checks that rules and dashboard use only metrics of docs/metrics.md, that each alert has a section of
the runbook, and that each query of the dashboard is valid and bounded.

    test.py [FOLDER]

The queries of the dashboard are written into FOLDER as rules, for promtool.
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

here = pathlib.Path(__file__).parent
root = here.parent.parent
documented = set(re.findall(r"^\| `(\w+)`", (root / "docs/metrics.md").read_text(), re.M))
sections = set(re.findall(r"^## (\w+)$", (root / "docs/runbook.md").read_text(), re.M))
rules = yaml.safe_load((here / "boldgate.rules.yaml").read_text())
dashboard = json.loads((root / "deploy/grafana/boldgate-dashboard.json").read_text())
faults, alerts = [], []
# The labels that can have many values; a query by one of them has a bound.
MANY = {"tenant", "server", "instance", "code", "reason", "file", "caller"}
VARIABLES = {"$instance": ".*", "$tenant": ".*", "$server": ".*", "$__rate_interval": "5m"}


def check_names(where, expression):
    for name in re.findall(r"\b(?:boldgate|process)_\w+", expression):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if not {name, base} & documented:
            faults.append(f"{where}: no metric is called {name}")


def plain(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


for group in rules["groups"]:
    for rule in group["rules"]:
        alerts.append(rule["alert"])
        check_names(rule["alert"], rule["expr"])
        anchor = f"docs/runbook.md#{rule['alert'].lower()}"
        if rule["alert"] not in sections or rule["annotations"]["runbook_url"] != anchor:
            faults.append(f"{rule['alert']}: no section of docs/runbook.md, or another link")
faults += [f"docs/runbook.md: {name} is no alert" for name in sorted(sections - set(alerts))]

panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
queries = [(panel["title"], target) for panel in panels for target in panel["targets"]]
ids = [panel["id"] for panel in dashboard["panels"]]
if len(ids) != len(set(ids)):
    faults.append("dashboard: two panels have the same id")
for panel in panels:
    if not panel.get("description"):
        faults.append(f"dashboard, {panel['title']}: no description")
    faults += [
        f"dashboard, {panel['title']}: {name} is no alert"
        for name in re.findall(r"\bBoldgate\w+", panel["description"])
        if name not in alerts
    ]
for title, target in queries:
    expression, where = target["expr"], f"dashboard, {title}"
    check_names(where, expression)
    # A sum over everything has one value, whatever is in it.
    grouped = [] if re.match(r"(sum|count|min|max)\(", expression) else re.findall(r"by \(([^)]*)\)", expression)
    labels = {label for by in grouped for label in by.split(", ")}
    labels |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    if labels & MANY and not re.match(r"(topk|bottomk)\(\d+, ", expression):
        faults.append(f"{where}: {', '.join(sorted(labels & MANY))} without topk or bottomk")
    if "$instance" not in expression:
        faults.append(f"{where}: not of the chosen gateways")
    if "$" in plain(expression):
        faults.append(f"{where}: an unknown variable in {expression}")
    if target["datasource"]["uid"] != "${datasource}":
        faults.append(f"{where}: a fixed data source")
if len(queries) < 40:
    faults.append(f"dashboard: only {len(queries)} queries")
if faults:
    sys.exit("\n".join(faults))

if len(sys.argv) > 1:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    recorded = [
        {"record": f"dashboard:query:{number}", "expr": plain(target["expr"])}
        for number, (_, target) in enumerate(queries)
    ]
    path = folder / "dashboard.rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    subprocess.run(["promtool", "check", "rules", str(path)], check=True, stdout=subprocess.DEVNULL)
print(f"alerts: {len(alerts)}, all by documented metrics, each with its section of the runbook")
print(f"dashboard: {len(queries)} queries in {len(panels)} panels, all valid, bounded, by documented metrics")
