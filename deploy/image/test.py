"""Checks the archives that build.sh wrote, and starts the image with runc.

    test.py FOLDER

Compared with the last stage of deploy/Dockerfile: user, entrypoint, arguments, ports, stop signal,
health check, labels and copied files. Started as Kubernetes' restricted profile would: no capability, no new
privileges, a read-only root, and a limit of memory.
"""

import json
import pathlib
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request

MEMORY_LIMIT = 64 * 1024 * 1024
START_TIMEOUT = 20
CONFIG = """
listeners: [{ address: 127.0.0.1:18080, callers: anonymous }]
admin: { address: 127.0.0.1:19090 }
servers: { main: { url: "http://127.0.0.1:9/bi" } }
tenants:
  acme:
    server: main
    site: site1
    credential:
      username: reports@acme.example
      user_source: local
      grant: embed_secret
      embed_secret: { env: BOLDGATE_EMBED_SECRET }
"""


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def last_stage():
    """What the last stage of the Dockerfile says: instruction -> list of its texts."""
    text = pathlib.Path(__file__).parent.with_name("Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    said = {}
    for line in text[text.index("FROM gcr.io"):].splitlines():
        if line.strip():
            instruction, rest = line.split(None, 1)
            said.setdefault(instruction, []).append(rest)
    return said


def check_config(said, archive):
    # Raw, because the common form of both kinds has no health check.
    config = json.loads(run("skopeo", "inspect", "--raw", "--config", archive))["config"]
    labels = {word.split("=", 1)[0] for word in shlex.split(" ".join(said["LABEL"]))}
    expected = {
        "User": said["USER"][0],
        "Entrypoint": json.loads(said["ENTRYPOINT"][0]),
        "Cmd": json.loads(said["CMD"][0]),
        "ExposedPorts": {f"{port}/tcp": {} for port in said["EXPOSE"][0].split()},
        "StopSignal": said["STOPSIGNAL"][0],
    }
    for key, value in expected.items():
        assert config.get(key) == value, f"{archive}: {key} is {config.get(key)}, not {value}"
    have = {name for name in config["Labels"] if not name.startswith("io.buildah.")}
    assert have == labels, f"{archive}: labels {have}, not {labels}"
    # An OCI archive cannot hold it.
    if archive.startswith("docker"):
        options, test = said["HEALTHCHECK"][0].split("CMD", 1)
        expected = {"Test": ["CMD", *json.loads(test)], "Retries": int(option(options, "retries"))}
        for key, name in (("Interval", "interval"), ("Timeout", "timeout"), ("StartPeriod", "start-period")):
            expected[key] = int(option(options, name).removesuffix("s")) * 10**9
        assert config.get("Healthcheck") == expected, f"{archive}: {config.get('Healthcheck')}"


def option(options, name):
    return re.search(rf"--{name}=(\w+)", options)[1]


def check_files(said, root):
    for line in said["COPY"]:
        target = root / line.split()[-1].lstrip("/")
        assert target.stat().st_mode & 0o777 == 0o755, target
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        name = f"/{path.relative_to(root)}"
        assert not mode & (stat.S_ISUID | stat.S_ISGID), f"{name} is set-user-id"
        assert stat.S_ISLNK(mode) or name == "/tmp" or not mode & 0o022, f"{name}: others may write"
    programs = sorted(p.name for p in (root / "usr/bin").iterdir())
    assert programs == ["boldgate"], programs
    assert not (root / "bin").exists() and not (root / "sbin").exists(), "there is a shell"
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100, "the CA certificates are missing"


def spec(bundle, arguments, folder):
    """Rewrites the runtime's configuration: the host's network, and the least of everything else."""
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    process = config["process"]
    process["terminal"] = False
    process["args"] = ["/usr/bin/boldgate", *arguments]
    process["env"].append("BOLDGATE_EMBED_SECRET=not-a-secret")
    process["capabilities"] = {}
    process["noNewPrivileges"] = True
    assert process["user"]["uid"] == 65532, process["user"]
    config["root"]["readonly"] = True
    mount = {"type": "bind", "options": ["bind", "ro"], "destination": "/etc/boldgate", "source": str(folder)}
    config["mounts"].append(mount)
    linux = config["linux"]
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] not in ("network", "user")]
    linux.pop("uidMappings", None)
    linux.pop("gidMappings", None)
    linux.setdefault("resources", {})["memory"] = {"limit": MEMORY_LIMIT}
    path.write_text(json.dumps(config))


def ready():
    try:
        with urllib.request.urlopen("http://127.0.0.1:19090/readyz", timeout=1) as response:
            return response.status == 200
    except OSError:
        return False


def start(bundle, folder):
    spec(bundle, ["--version"], folder)
    version = run("runc", "run", "--bundle", str(bundle), "boldgate-version")
    assert version.startswith("boldgate "), version
    spec(bundle, ["serve", "--config", "/etc/boldgate/gateway.yaml"], folder)
    begun = time.monotonic()
    process = subprocess.Popen(["runc", "run", "--bundle", str(bundle), "boldgate-serve"])
    try:
        while not ready():
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < begun + START_TIMEOUT, "it is not ready in time"
            time.sleep(0.02)
        took = time.monotonic() - begun
        health = json.loads(last_stage()["HEALTHCHECK"][0].split("CMD", 1)[1])
        healthy = run("runc", "exec", "boldgate-serve", *health)
        assert healthy == "/livez at 127.0.0.1:19090: alive\n", healthy
        run("runc", "kill", "boldgate-serve", "TERM")
        assert process.wait(timeout=10) == 0, f"it ended with {process.returncode}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            subprocess.run(["runc", "delete", "--force", "boldgate-serve"], check=False)
    return version.strip(), took


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    said = last_stage()
    archives = {}
    for kind in ("oci", "docker"):
        [path] = folder.glob(f"boldgate-*-{kind}.tar")
        archives[kind] = path
        check_config(said, f"{kind}-archive:{path}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        run("skopeo", "copy", "--quiet", f"oci-archive:{archives['oci']}", f"oci:{scratch}/oci:it")
        run("umoci", "unpack", "--image", f"{scratch}/oci:it", f"{scratch}/bundle")
        check_files(said, scratch / "bundle/rootfs")
        config = scratch / "config"
        config.mkdir()
        (config / "gateway.yaml").write_text(CONFIG)
        version, took = start(scratch / "bundle", config)
        shutil.rmtree(scratch / "bundle/rootfs")
    sizes = ", ".join(f"{kind} {path.stat().st_size / 1e6:.1f} MB" for kind, path in archives.items())
    print(f"image: {version}; {sizes}; ready {took:.2f} s after runc, and ended by SIGTERM with 0")


main()
