"""Prints the gateway's configuration that is embedded in a Kubernetes manifest.

First it checks that pod and configuration match, which no schema can do: the configuration and
each secret file are mounted where they are read, probes use an address of the admin listener that
the kubelet reaches, and the grace period is longer than the drain timeout.
"""

import ipaddress
import pathlib
import re
import sys

import yaml

# The default of `limits.drain_timeout`.
DRAIN_TIMEOUT = "25s"
# The time that the last spans have.
LAST_SPANS = 3
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def main(path: str) -> None:
    documents = [d for d in yaml.safe_load_all(pathlib.Path(path).read_text()) if d]
    maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    [pod] = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]
    [gateway] = [
        c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == "boldgate"
    ]

    files = mounted_files(pod, gateway, maps)
    config_path = gateway["args"][gateway["args"].index("--config") + 1]
    text = files.get(config_path)
    expect(text, f"--config names {config_path}, but nothing is mounted there")
    config = yaml.safe_load(text)

    for secret in secret_files(config):
        found = secret in files or f"{pathlib.PurePath(secret).parent}/" in files
        expect(found, f"the configuration reads {secret}, but nothing is mounted there")

    host, admin_port = config["admin"]["address"].rsplit(":", 1)
    named = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    for probe in ("startupProbe", "readinessProbe"):
        port = named.get(gateway[probe]["httpGet"]["port"], gateway[probe]["httpGet"]["port"])
        expect(port == int(admin_port), f"{probe} uses port {port}, admin listens on {admin_port}")
    address = ipaddress.ip_address(host.strip("[]"))
    expect(not address.is_loopback, f"the kubelet cannot reach admin on {host}")

    grace = pod["terminationGracePeriodSeconds"]
    drain = config.get("limits", {}).get("drain_timeout", DRAIN_TIMEOUT)
    lame_duck = config.get("limits", {}).get("lame_duck", "0s")
    needed = seconds(lame_duck) + seconds(drain) + (LAST_SPANS if "traces" in config else 0)
    expect(grace > needed, f"{grace} s of grace must exceed the {needed} s of lame duck and drain")
    print(text, end="")


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(\w+)", duration).groups()
    return int(number) * SECONDS[unit]


def mounted_files(pod: dict, container: dict, maps: dict) -> dict:
    """The files in the container by path: their text, or True for secrets."""
    files = {}
    volumes = {v["name"]: v for v in pod["volumes"]}
    for mount in container["volumeMounts"]:
        expect(mount.get("readOnly"), f"the mount {mount['name']} is writable")
        volume, root = volumes[mount["name"]], mount["mountPath"]
        if "configMap" in volume:
            for key, text in maps[volume["configMap"]["name"]].items():
                files[f"{root}/{key}"] = text
        if "secret" in volume:
            mode = volume["secret"]["defaultMode"]
            expect(mode & 0o007 == 0, f"all users may read the secret: its mode is {mode:o}")
            # Without `items` every key of the Secret is a file in the folder.
            for item in volume["secret"].get("items", [{"path": ""}]):
                files[f"{root}/{item['path']}"] = True
    return files


def secret_files(node: object):
    """Every `{ file: ... }` and `..._file: ...` in the configuration."""
    if isinstance(node, dict):
        for key, child in node.items():
            if set(node) == {"file"} or key.endswith("_file"):
                yield child
            else:
                yield from secret_files(child)
    elif isinstance(node, list):
        for child in node:
            yield from secret_files(child)


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        sys.exit(f"{sys.argv[1]}: {otherwise}")


if __name__ == "__main__":
    main(sys.argv[1])
