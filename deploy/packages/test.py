"""Installs, uses, upgrades and removes the packages, as root.

    test.py FOLDER-OF-A-VERSION-BEFORE FOLDER FOLDER-TO-WORK-IN

The deb in Debian that is booted by systemd-nspawn: bookworm, and bullseye for systemd 247 and an older
glibc. The rpm, without its dependencies, by Debian's rpm in a folder with bookworm; nothing boots it.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

SUITES = {"bookworm": "252", "bullseye": "247"}
BOOT_TIMEOUT = 400
UNIT = """[Unit]
Description=The test of the package
After=basic.target dbus.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'python3 -u /test/inside.py /test/before.deb /test/after.deb && echo PASSED'
StandardOutput=file:/test/output.txt
StandardError=inherit
ExecStopPost=/bin/systemctl --no-block poweroff

[Install]
WantedBy=multi-user.target
"""


def run(*command, **more):
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}: {ended.stdout}"
    return ended.stdout


def only(folder, pattern):
    [path] = folder.glob(pattern)
    return path


def check_sums(folder):
    named = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(named) == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}, named
    for name, digest in named.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def check_sbom(folder):
    sbom = json.loads(only(folder, "*.cdx.json").read_text())
    names = {component["name"] for component in sbom["components"]}
    assert sbom["bomFormat"] == "CycloneDX" and sbom["metadata"]["component"]["name"] == "boldgate"
    assert {"ring", "rustls", "pingora"} <= names and "criterion" not in names, "crates of the binary alone"
    assert "file:///boldgate#" in json.dumps(sbom) and str(pathlib.Path.cwd()) not in json.dumps(sbom)
    return len(names)


def tree(work, suite, name):
    """A new folder with this Debian, which is downloaded once."""
    archive = work / f"{suite}.tar"
    if not archive.exists():
        packages = "systemd,systemd-sysv,dbus,python3"
        run("mmdebstrap", "--format=tar", "--variant=minbase", f"--include={packages}", suite, f"{archive}.part")
        pathlib.Path(f"{archive}.part").rename(archive)
    root = work / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    run("tar", "--directory", str(root), "--extract", "--file", str(archive))
    return root


def boot(work, suite, before, after):
    root = tree(work, suite, f"{suite}-root")
    test = root / "test"
    test.mkdir()
    shutil.copy(only(before, "*.deb"), test / "before.deb")
    shutil.copy(only(after, "*.deb"), test / "after.deb")
    shutil.copy(pathlib.Path(__file__).with_name("inside.py"), test)
    (root / "etc/systemd/system/package-test.service").write_text(UNIT)
    run("systemctl", "--root", str(root), "enable", "package-test.service")
    version = run("chroot", str(root), "systemctl", "--version").split()[1]
    assert version == SUITES[suite], f"{suite} has systemd {version}"
    command = ["systemd-nspawn", "--directory", str(root), "--boot", "--quiet", "--register=no", "--keep-unit"]
    console = work / f"{suite}-console.txt"
    with console.open("w") as log:
        subprocess.run(
            [*command, "--private-network", "--console=pipe"], timeout=BOOT_TIMEOUT, check=False,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )
    output = test / "output.txt"
    assert output.exists(), f"the test did not run: see {console}"
    text = output.read_text()
    assert text.endswith("PASSED\n"), f"{suite}: {text}"
    for line in text.splitlines()[:-1]:
        print(f"deb, {suite}, systemd {version}: {line}")
    shutil.rmtree(root)


def found_in(root):
    skipped = {"var", "proc", "sys", "dev", "tmp", "run"}
    top = [path for path in root.iterdir() if path.name not in skipped]
    return {str(path) for folder in top for path in folder.rglob("*") if "__pycache__" not in path.parts}


def erase(work, before, after):
    root = tree(work, "bookworm", "rpm-root")
    rpm = ["rpm", "--force-debian", "--root", str(root), "--nodeps"]
    run("rpm", "--root", str(root), "--initdb")
    at_first = found_in(root)
    said = run(*rpm, "--install", str(only(before, "*.rpm")))
    assert "not started before it is configured" in said, said
    config = root / "etc/boldgate/gateway.yaml"
    group = [line for line in (root / "etc/group").read_text().splitlines() if line.startswith("boldgate:")]
    assert config.stat().st_gid == int(group[0].split(":")[2]) and config.stat().st_mode & 0o777 == 0o640
    assert run("chroot", str(root), "boldgate", "--version").startswith("boldgate ")
    shipped = config.read_text()
    changed = shipped.replace("site1", "site2")
    config.write_text(changed)
    run(*rpm, "--upgrade", str(only(after, "*.rpm")))
    assert config.read_text() == changed and config.stat().st_gid == int(group[0].split(":")[2])
    newer = config.with_name("gateway.yaml.rpmnew")
    assert newer.exists() and newer.read_text() != shipped, "both packages have the same configuration"
    run(*rpm, "--erase", "boldgate")
    left = {path.removeprefix(str(root)) for path in found_in(root) - at_first}
    # The changed configuration, and the newer one of the package beside it; users stay, as is usual for an rpm.
    backups = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}
    expected = {"/etc/boldgate", "/etc/boldgate/gateway.yaml.rpmsave", str(newer).removeprefix(str(root))}
    assert left - backups == expected, left
    print("rpm: installed, upgraded and erased in a folder; a changed configuration is kept as .rpmsave")
    shutil.rmtree(root)


def main():
    before, after, work = (pathlib.Path(path).resolve() for path in sys.argv[1:])
    work.mkdir(parents=True, exist_ok=True)
    check_sums(after)
    print(f"packages: the checksums fit; the SBOM names {check_sbom(after)} crates")
    erase(work, before, after)
    for suite in SUITES:
        boot(work, suite, before, after)


main()
