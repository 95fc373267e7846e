"""Checks that the chart carries the alert rules and the dashboard of this repository, and that its README
names every value.

    chart.py RENDERED
"""

import json
import pathlib
import re
import sys

import yaml

deploy = pathlib.Path(__file__).parent.parent
rendered = [part for part in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()) if part]


def only(kind, name):
    [found] = [part for part in rendered if part["kind"] == kind and part["metadata"]["name"].endswith(name)]
    return found


for source in ("prometheus/boldgate.rules.yaml", "grafana/boldgate-dashboard.json"):
    copy = deploy / "helm/boldgate/files" / pathlib.Path(source).name
    if copy.read_bytes() != (deploy / source).read_bytes():
        sys.exit(f"deploy/{source} has changed: copy it to deploy/helm/boldgate/files")
rules = yaml.safe_load((deploy / "prometheus/boldgate.rules.yaml").read_text())
assert only("PrometheusRule", "boldgate")["spec"] == rules, "the rendered rules are others"
dashboard = only("ConfigMap", "-dashboard")
assert json.loads(dashboard["data"]["boldgate-dashboard.json"]) == json.loads(
    (deploy / "grafana/boldgate-dashboard.json").read_text()
), "the rendered dashboard is another"
assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", dashboard["metadata"]
chart = deploy / "helm/boldgate"
values = set(yaml.safe_load((chart / "values.yaml").read_text()))
_, _, table = (chart / "README.md").read_text().partition("## Values")
rows = re.findall(r"^\| (`\w+`[^|]*)\|", table, re.M)
named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
assert named == values, f"README.md of the chart, and not both of them, names {sorted(named ^ values)}"
print(f"chart: {sum(len(group['rules']) for group in rules['groups'])} alerts and the dashboard, as in deploy/")
