"""Checks the files of the demo, and runs its processes.

    test.py check FOLDER
    unshare --mount --net test.py run BINARY FOLDER

`check` compares names, ports and paths that stand in more than one file, and asks promtool. `run`, as
root, starts every service of compose.yaml whose program is here, from the same files, with the same
arguments and as the same user: all but Grafana, which Debian does not have. All services share the network
that unshare made, and their names are in /etc/hosts. Nobody else sees the files that are put there.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
demo = here / "demo"
services = yaml.safe_load((demo / "compose.yaml").read_text())["services"]
gateway = yaml.safe_load((demo / "gateway/gateway.yaml").read_text())
prometheus = yaml.safe_load((demo / "prometheus.yml").read_text())
rules = yaml.safe_load((root / "deploy/prometheus/boldgate.rules.yaml").read_text())
dashboard = json.loads((root / "deploy/grafana/boldgate-dashboard.json").read_text())
WITHOUT_PROGRAM = {"grafana"}
DATA_SOURCE = {"name", "type", "access", "url", "isDefault", "jsonData", "uid"}
PROVIDER = {"name", "type", "options", "folder", "orgId", "updateIntervalSeconds", "allowUiUpdates"}


def volumes(service, base):
    """Container path -> file or folder."""
    parts = [volume.split(":") for volume in service.get("volumes", [])]
    assert all(len(part) == 3 and part[2] == "ro" for part in parts), f"not read-only: {parts}"
    return {part[1]: (base / part[0]).resolve() for part in parts}


def mounted(name, path):
    """The file of this repository that a service sees at `path`."""
    for target, source in volumes(services[name], demo).items():
        if path == target:
            return source
        if path.startswith(target + "/"):
            return source / path.removeprefix(target + "/")
    raise AssertionError(f"{name} has nothing at {path}")


def port(address):
    return int(address.rsplit(":", 1)[1])


def option(name, service="prometheus"):
    [value] = [word.split("=", 1)[1] for word in services[service]["command"] if word.startswith(f"--{name}=")]
    return value


def check(folder):
    cargo = (root / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"', cargo, re.M)[1]
    for file in sorted(here.glob("*/compose.yaml")):
        found = yaml.safe_load(file.read_text())
        for name, service in found["services"].items():
            where = f"{file.parent.name}/compose.yaml, {name}"
            image, tag = service["image"].rsplit(":", 1)
            assert image != "boldgate" or tag == version, f"{where}: boldgate {tag}, not {version}"
            for source in volumes(service, file.parent).values():
                assert source.exists(), f"{where}: there is no {source}"
            for published in service.get("ports", []):
                assert published.startswith("127.0.0.1:"), f"{where}: {published} is open to everybody"
            joined = service.get("network_mode", "").removeprefix("service:")
            assert not joined or joined in found["services"], f"{where}: no service is called {joined}"

    [job] = prometheus["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    assert target == f"gateway:{port(gateway['admin']['address'])}", f"prometheus.yml scrapes {target}"
    [published] = services["prometheus"]["ports"]
    assert port(published) == port(option("web.listen-address")), published
    staged = folder / "compose"
    staged.mkdir(parents=True, exist_ok=True)
    config = option("config.file")
    for path in (config, *(f"{pathlib.Path(config).parent}/{name}" for name in prometheus["rule_files"])):
        (staged / pathlib.Path(path).name).write_bytes(mounted("prometheus", path).read_bytes())
    subprocess.run(["promtool", "check", "config", str(staged / "prometheus.yml")], check=True, stdout=subprocess.DEVNULL)

    provisioned = "/etc/grafana/provisioning"
    sources = yaml.safe_load(mounted("grafana", f"{provisioned}/datasources/boldgate.yaml").read_text())
    assert sources.keys() == {"apiVersion", "datasources"} and sources["apiVersion"] == 1, sources
    [source] = sources["datasources"]
    assert source.keys() <= DATA_SOURCE, f"Grafana knows no {source.keys() - DATA_SOURCE}"
    assert source["url"] == f"http://prometheus:{port(option('web.listen-address'))}", source
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"], source
    [wanted] = [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert source["type"] == wanted and source["isDefault"] is True, source
    providers = yaml.safe_load(mounted("grafana", f"{provisioned}/dashboards/boldgate.yaml").read_text())
    assert providers.keys() == {"apiVersion", "providers"} and providers["apiVersion"] == 1, providers
    [provider] = providers["providers"]
    assert provider.keys() <= PROVIDER and provider["type"] == "file", provider
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert pathlib.Path(home).parent == pathlib.Path(provider["options"]["path"]), home
    assert json.loads(mounted("grafana", home).read_text()) == dashboard

    key = re.search(r"X-Api-Key: ([\w-]+)", (demo / "compose.yaml").read_text())[1]
    [known] = [caller["api_key"]["sha256"] for caller in gateway["callers"].values()]
    assert hashlib.sha256(key.encode()).hexdigest() == known, "the key in compose.yaml is another"
    print(f"compose: {len(services)} services of the demo; their names, ports and paths fit")


def bind(source, target, *options):
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    run("mount", "--bind", *options, str(source), str(target))


def prepare(binary, folder):
    """Puts all files where the containers have them. Below /mnt every user can reach binary and folder."""
    assert len(json.loads(run("ip", "-json", "link"))) == 1, "call it by `unshare --mount --net`"
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "none", "/mnt")
    run("cp", "--archive", "/etc/.", "/mnt")
    run("mount", "--move", "/mnt", "/etc")
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.0.1 {' '.join(services)}\n")
    for name, service in services.items():
        if name in WITHOUT_PROGRAM:
            continue
        for target, source in volumes(service, demo).items():
            assert target.startswith("/etc/"), target
            bind(source, target, "-o", "ro")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/mnt")
    bind(binary, "/mnt/boldgate")
    bind(folder, "/mnt/folder")
    return "/mnt/boldgate", pathlib.Path("/mnt/folder")


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def instruction(name):
    """The arguments of an instruction in the last stage of the Dockerfile."""
    found = re.findall(rf"^{name} (\[.*\])$", (root / "deploy/Dockerfile").read_text(), re.M)
    return json.loads(found[-1])


def command(name, binary, data):
    """The arguments of the process, and the user it is started as."""
    service = services[name]
    words = [word.replace("$$", "$") for word in service.get("command", [])]
    if service["image"].startswith("boldgate:"):
        [program] = instruction("ENTRYPOINT")
        assert program == "/usr/bin/boldgate"
        return [binary, *(words or instruction("CMD"))], 65532
    if name == "prometheus":
        # The only path that it writes to.
        return ["prometheus", *(word.replace("/prometheus", str(data)) if "tsdb" in word else word for word in words)], 65534
    return [*service["entrypoint"], *words], 65534


@contextlib.contextmanager
def started(name, binary, data):
    words, user = command(name, binary, data)
    env = {"PATH": os.environ["PATH"], **services[name].get("environment", {})}
    with (data / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            words, env=env, user=user, group=user, extra_groups=[], stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None, b""


def ask(path, **parameters):
    """What Prometheus says; by the address that Grafana has of it."""
    source = yaml.safe_load((demo / "grafana/datasources.yaml").read_text())["datasources"][0]["url"]
    status, body = get(f"{source}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
    return json.loads(body)["data"] if status == 200 else None


def value(query):
    found = ask("query", query=query)
    return float(found["result"][0]["value"][1]) if found and found["result"] else 0.0


def until(what, condition, processes):
    end = time.monotonic() + 40
    while not condition():
        for process in processes:
            assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        if time.monotonic() > end:
            raise AssertionError(f"not within 40 s: {what}; {value('up')}; {ask('alerts')}")
        time.sleep(0.2)


def queries():
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "1m")
            yield re.sub(r"\$(instance|tenant|server)", ".*", query)


def shown(asked):
    """How many of the queries have data. All must be valid."""
    found = [ask("query", query=query) for query in asked]
    assert None not in found, asked[found.index(None)]
    return sum(bool(data["result"]) for data in found)


def start(binary, data):
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        running = {}

        def go(name):
            running[name] = stack.enter_context(started(name, binary, data))

        for name in ("gateway", "bold-bi"):
            go(name)
        health = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", (root / "deploy/Dockerfile").read_text())[-1]
        healthy = [binary, *json.loads(health)[1:]]
        until("the gateway is healthy", lambda: subprocess.run(healthy, capture_output=True).returncode == 0, running.values())
        for name in services.keys() - running.keys() - WITHOUT_PROGRAM:
            go(name)
        took = time.monotonic() - begun

        url = re.search(r"http://127.0.0.1:8080/bi\S+", (demo / "compose.yaml").read_text())[0]
        until("Bold BI is served", lambda: get(url, **{"X-Api-Key": "demo-key"})[0] == 200, running.values())
        assert get(url)[0] == 401, "a caller without the key is refused"
        until("Prometheus scrapes", lambda: value("up"), running.values())
        for tenant in gateway["tenants"]:
            served = f'boldgate_http_requests_total{{tenant="{tenant}",outcome="served"}}'
            until(f"{tenant} is served", lambda served=served: value(served) > 5, running.values())
        groups = (ask("rules") or {}).get("groups", [])
        loaded = {rule["name"] for group in groups for rule in group["rules"]}
        assert loaded == {rule["alert"] for group in rules["groups"] for rule in group["rules"]}, loaded
        # Until the first scrape, the gateway is absent.
        until("no alert is pending", lambda: (ask("alerts") or {}).get("alerts") == [], running.values())
        asked = list(queries())
        # Series of refusals, faults and certificates begin with the first, and here are none.
        until("the dashboard has data", lambda: shown(asked) > len(asked) / 2, running.values())
        wrong = (data / "application.log").read_text()
        assert wrong == "", f"the application has got: {wrong}"

        data_for = shown(asked)
        # As `docker compose down` does, clients first.
        for name in ("application", "prometheus", "bold-bi", "gateway"):
            os.killpg(running[name].pid, signal.SIGTERM)
            running[name].wait(timeout=30)
        for name in ("gateway", "bold-bi"):
            assert running[name].returncode == 0, f"{name} ended with {running[name].returncode}"
    print(f"compose demo: {len(running)} of {len(services)} services run from its files, started in {took:.1f} s")
    print(f"compose demo: Prometheus has {len(loaded)} alerts, none pending, and data for {data_for} of {len(asked)} queries")


if sys.argv[1] == "check":
    check(pathlib.Path(sys.argv[2]))
else:
    given, where = pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]).resolve()
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    where.chmod(0o777)
    start(*prepare(given, where))
