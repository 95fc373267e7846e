"""Uses the deb in a booted Debian, as its root: installs, configures, starts, upgrades, rolls back, purges.

    inside.py BEFORE.deb AFTER.deb

test.py starts it. A fault is an exception; what was seen is printed.
"""

import grp
import http.client
import http.server
import json
import os
import pathlib
import pwd
import re
import socket
import stat
import subprocess
import sys
import threading
import time

BOLD_BI = 9999
CONFIG = pathlib.Path("/etc/boldgate/gateway.yaml")
SECRET = pathlib.Path("/etc/boldgate/secrets/embed-secret")
PATH = "/bi/api/site/site1/v5.0/dashboards"
# Written by Debian itself.
ELSEWHERE = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/var/cache/man")
SNAPSHOT = ("/etc", "/usr", "/run/systemd/system", "/var/log/boldgate", "/var/lib/boldgate", "/opt", "/srv")


def run(*command, code=0):
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == code, f"{command} ended with {ended.returncode}: {ended.stdout}"
    return ended.stdout


def unit(name, of="boldgate.service"):
    return run("systemctl", "show", "--value", "--property", name, of).strip()


def until(what, condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"not within 30 s: {what}\n{run('journalctl', '--unit', 'boldgate', '--no-pager', '--lines', '40')}"
        time.sleep(0.1)


class BoldBi(http.server.BaseHTTPRequestHandler):
    """Gives a token, and then demands it."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = 200, {"value": "of Bold BI"}
        if self.path.endswith("/token"):
            body = {"access_token": "the-token", "token_type": "bearer", "expires_in": "86399", "email": "reports@acme.example"}
        elif self.headers.get("Authorization", "").lower() != "bearer the-token":
            status, body = 401, {}
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def ask(connection):
    connection.request("GET", PATH, headers={"Host": "localhost"})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, f"{response.status}: {body}"


def ask_tcp():
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    ask(connection)
    connection.close()


def asks_as(group, path):
    """Whether a process of nobody with this group gets a response at this socket."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            ask(UnixConnection(path))
            code = 0
        except PermissionError:
            code = 13
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 13), code
    return code == 0


def files():
    found = set()
    for root in SNAPSHOT:
        for folder, folders, names in os.walk(root):
            found.update(os.path.join(folder, name) for name in folders + names)
    return {path for path in found if not path.startswith(ELSEWHERE) and "__pycache__" not in path}


def accounts():
    return sorted(user.pw_name for user in pwd.getpwall()) + sorted(group.gr_name for group in grp.getgrall())


def check_files():
    for path, mode, group in [
        ("/etc/boldgate", 0o750, "boldgate"),
        ("/etc/boldgate/secrets", 0o750, "boldgate"),
        (CONFIG, 0o640, "boldgate"),
        ("/usr/bin/boldgate", 0o755, "root"),
        ("/usr/lib/systemd/system/boldgate.service", 0o644, "root"),
    ]:
        found = os.stat(path)
        seen = (stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name)
        assert seen == (mode, "root", group), f"{path}: {seen}"
    assert "boldgate" in grp.getgrnam("boldgate-clients").gr_mem
    for page in ("boldgate", "boldgate-serve", "boldgate-health"):
        assert pathlib.Path(f"/usr/share/man/man1/{page}.1.gz").exists(), page
    for name in ("bash-completion/completions/boldgate", "zsh/vendor-completions/_boldgate", "fish/vendor_completions.d/boldgate.fish", "doc/boldgate/copyright"):
        assert pathlib.Path("/usr/share", name).exists(), name


def check_documents():
    """Links between the documents lead to what the package has."""
    top = pathlib.Path("/usr/share/doc/boldgate")
    pages = [top / "README.md", *top.glob("docs/*.md")]
    assert len(pages) > 8, pages
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            target = pathlib.Path(os.path.normpath(page.parent / link))
            # Of containers, sources and tests the package has nothing.
            elsewhere = re.match(r"https?:|(\.\./)*(deploy/(helm|kustomize|compose|systemd)|benches|tests|src)\b", link)
            assert elsewhere or target.exists(), f"{page}: there is no {link}"


def version():
    return run("boldgate", "--version").strip()


def served_through(change):
    """Installs a package under load, and returns how many requests were served meanwhile."""
    stop, asked, failed = threading.Event(), [], []

    def load():
        while not stop.is_set():
            try:
                ask_tcp()
                asked.append(1)
            except Exception as error:
                failed.append(error)
            time.sleep(0.01)

    thread = threading.Thread(target=load)
    thread.start()
    config, process = CONFIG.read_text(), unit("MainPID")
    # Packages with another gateway.yaml: without the option dpkg would ask what to do with ours.
    run("dpkg", "--force-confold", "--install", change)
    until("the other version runs", lambda: unit("MainPID") not in ("0", process))
    until("it is active", lambda: unit("ActiveState") == "active")
    time.sleep(1)
    stop.set()
    thread.join()
    assert not failed, f"{len(failed)} of {len(asked)} requests failed: {failed[0]!r}"
    assert len(asked) > 50, len(asked)
    assert CONFIG.read_text() == config and SECRET.exists()
    check_files()
    return len(asked)


def configure():
    SECRET.write_text("not-a-secret\n")
    os.chown(SECRET, 0, grp.getgrnam("boldgate").gr_gid)
    SECRET.chmod(0o640)
    text = CONFIG.read_text()
    assert "https://bi.example.com/bi" in text
    text = text.replace("https://bi.example.com/bi", f"http://127.0.0.1:{BOLD_BI}/bi")
    CONFIG.write_text(text)
    # Before the sockets are in it: their folder is there once the service starts.
    run("runuser", "-u", "boldgate", "--", "boldgate", "check")
    sockets = """listeners:
  - { address: "unix:/run/boldgate-clients.sock", callers: anonymous }
  - { address: "unix:/run/boldgate/own.sock", group: boldgate-clients, callers: anonymous }
"""
    assert text.count("listeners:\n") == 1
    CONFIG.write_text(text.replace("listeners:\n", sockets))


def main():
    before, after = sys.argv[1:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", BOLD_BI), BoldBi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at_first = (files(), accounts())

    said = run("dpkg", "--install", before)
    assert "not started before it is configured" in said, said
    check_files()
    for name in ("boldgate.service", "boldgate.socket", "boldgate-clients.socket"):
        run("systemctl", "is-active", name, code=3)
        run("systemctl", "is-enabled", name, code=1)
    print("installed, with its files, its user and its groups; nothing is started")

    run("systemctl", "start", "boldgate", code=1)
    until("it has failed", lambda: unit("ActiveState") == "failed")
    time.sleep(3)
    assert (unit("ExecMainStatus"), unit("NRestarts")) == ("78", "0")
    run("systemctl", "stop", "boldgate.socket")
    run("systemctl", "reset-failed", "boldgate.service")
    print("a start without a configuration fails once, with 78, and is not repeated")

    configure()
    run("boldgate", "check", "--no-secrets", str(CONFIG))
    run("systemctl", "enable", "--now", "boldgate.socket", "boldgate-clients.socket", "boldgate.service")
    assert unit("ActiveState") == "active"
    run("boldgate", "health", "--ready")
    ask_tcp()
    print("configured, started, ready, and it serves with a token")

    group = grp.getgrnam("boldgate-clients").gr_gid
    nobody = grp.getgrnam("nogroup").gr_gid
    for path in ("/run/boldgate-clients.sock", "/run/boldgate/own.sock"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660 and os.stat(path).st_gid == group, path
        assert asks_as(group, path), f"{path}: a member of the group is let in"
        assert not asks_as(nobody, path), f"{path}: others are not"
    print("at both Unix sockets the members of boldgate-clients are served, and others may not connect")

    config, first = CONFIG.read_text(), version()
    served = served_through(after)
    assert version() != first, f"both packages are of {first}"
    check_documents()
    print(f"upgraded under load from {first} to {version()}: {served} requests, 0 failed; the configuration is kept")
    served = served_through(before)
    assert version() == first, version()
    print(f"rolled back under load: {served} requests, 0 failed; the configuration is kept")
    served_through(after)

    CONFIG.write_text(config.replace("servers:", "serves:"))
    process = unit("MainPID")
    said = run("dpkg", "--force-confold", "--install", after)
    assert "refuses the configuration; the former version runs on" in said, said
    assert unit("MainPID") == process
    ask_tcp()
    CONFIG.write_text(config)
    print("an upgrade to a version that refuses the configuration leaves the former one running")

    run("dpkg", "--remove", "boldgate")
    assert CONFIG.read_text() == config and not pathlib.Path("/usr/bin/boldgate").exists()
    assert not pathlib.Path("/run/boldgate-clients.sock").exists()
    try:
        ask_tcp()
        raise AssertionError("something listens after the removal")
    except ConnectionRefusedError:
        pass
    print("removed: stopped, and the configuration is kept")
    run("dpkg", "--purge", "boldgate")
    left = files() - at_first[0]
    assert not left, f"left after the purge: {sorted(left)}"
    assert accounts() == at_first[1], "users or groups are left"
    print("purged: no file, user or group is left")


main()
