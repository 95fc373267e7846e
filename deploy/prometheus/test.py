"""Checks that rules use only metrics of docs/metrics.md, and that each alert has a section of the runbook.

    test.py
"""

import pathlib
import re
import sys

import yaml

here = pathlib.Path(__file__).parent
root = here.parent.parent
documented = set(re.findall(r"^\| `(\w+)`", (root / "docs/metrics.md").read_text(), re.M))
sections = set(re.findall(r"^## (\w+)$", (root / "docs/runbook.md").read_text(), re.M))
rules = yaml.safe_load((here / "boldgate.rules.yaml").read_text())
faults, alerts = [], []
for group in rules["groups"]:
    for rule in group["rules"]:
        alerts.append(rule["alert"])
        for name in re.findall(r"\b(?:boldgate|process)_\w+", rule["expr"]):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if not {name, base} & documented:
                faults.append(f"{rule['alert']}: no metric is called {name}")
        anchor = f"docs/runbook.md#{rule['alert'].lower()}"
        if rule["alert"] not in sections or rule["annotations"]["runbook_url"] != anchor:
            faults.append(f"{rule['alert']}: no section of docs/runbook.md, or another link")
faults += [f"docs/runbook.md: {name} is no alert" for name in sorted(sections - set(alerts))]
if faults:
    sys.exit("\n".join(faults))
print(f"alerts: {len(alerts)}, all by documented metrics, each with its section of the runbook")
