"""A gateway with tenants by the thousand, from files: time to the first answer, memory, CPU, metrics and changes.

    thousands.py --gateway PATH [--tenants 100000] [--requests 20000] [--factor 1] [--rough]

The bounds are those of 100,000 tenants, and in proportion for fewer. Times are multiplied by FACTOR, for a binary that
is not optimised. It ends with 1 if one does not hold. Linux only; everything stays on loopback and in a folder of its own.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

CONFIG = """listeners: [ {{ address: "127.0.0.1:0", callers: anonymous, hosts: [localhost] }} ]
admin: {{ address: "127.0.0.1:0" }}
servers:
  main: {{ url: "http://127.0.0.1:{port}/bi", max_exchanges: 64 }}
tenant_files: [ "{folder}/tenants.d/*.yaml" ]
tenant_defaults:
  server: main
  credential:
    grant: embed_secret
    username: reports@acme.example
    embed_secret: {{ file: "{folder}/secrets/{{site}}" }}
    user_source: azure_ad
"""
PER_FILE = 1000
TOKEN = 480
BODY = b'{"items":[]}'
MIB = 1 << 20


async def upstream(reader, writer):
    """Gives each site a token of 480 bytes, and responds to all else."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            await reader.readexactly(length)
            body = BODY
            path = head.split(b" ", 2)[1]
            if path.endswith(b"/token"):
                token = path.split(b"/")[-2].decode().ljust(TOKEN, "x")
                body = json.dumps({"access_token": token, "token_type": "bearer", "expires_in": 600000}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def serve_upstream(pipe):
    async def run():
        server = await asyncio.start_server(upstream, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(run())


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)


def generate(folder, tenants, port):
    for name in ("tenants.d", "secrets"):
        (folder / name).mkdir(parents=True)
    for first in range(0, tenants, PER_FILE):
        numbers = range(first, min(first + PER_FILE, tenants))
        write(folder / f"tenants.d/{first:06}.yaml", "".join(f"t{n:06}: {{ site: s{n:06} }}\n" for n in numbers))
        for number in numbers:
            write(folder / f"secrets/s{number:06}", f"embed-secret-of-thirty-two-{number:06}\n")
    write(folder / "gateway.yaml", CONFIG.format(port=port, folder=folder))


class Gateway:
    def __init__(self, program, folder):
        self.begun = time.monotonic()
        command = [program, "--log-format", "json", "serve", "--config", str(folder / "gateway.yaml")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.port = self.admin = None
        while self.admin is None:
            line = self.process.stderr.readline()
            if not line:
                sys.exit("the gateway has ended")
            said = json.loads(line)
            if said["message"] == "listening":
                self.port = int(said["address"].rsplit(":", 1)[1])
            elif said["message"] == "boldgate is ready":
                self.admin = int(said["admin"].rsplit(":", 1)[1])
            elif said["severity"] == "ERROR":
                sys.exit(line)
        # The pipe must not fill up.
        self.log = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def resident(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def settle(self):
        """Waits until it has nothing to do."""
        last = self.cpu()
        while True:
            time.sleep(1)
            now = self.cpu()
            if now - last < 0.01:
                return
            last = now

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.wait()


async def ask(reader, writer, path):
    writer.write(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status, length = int(head.split(b" ", 2)[1]), None
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    if length is not None:
        return status, await reader.readexactly(length)
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return status, b"".join(chunks)


def path_of(number):
    return f"/bi/api/site/s{number:06}/v5.0/items"


async def ask_each(port, numbers, connections=32):
    """One request for each tenant, all of which must be served."""
    numbers = iter(numbers)

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            status, _ = await ask(reader, writer, path_of(number))
            assert status == 200, (number, status)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))


async def ask_once(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = await ask(reader, writer, path)
    writer.close()
    return found


async def until(port, path, status):
    begun = time.monotonic()
    while (await ask_once(port, path))[0] != status:
        assert time.monotonic() - begun < 60, path
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


class Bounds:
    def __init__(self, rough):
        self.broken, self.rough = [], rough

    def check(self, what, value, bound, unit):
        holds = value <= bound or (self.rough and unit in ("MiB", ""))
        print(f"{what:<52} {value:>10.2f} {unit:<4} (at most {bound:.2f}){'' if holds else '  TOO MUCH'}", flush=True)
        if not holds:
            self.broken.append(what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--tenants", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--factor", type=float, default=1)
    parser.add_argument("--rough", action="store_true", help="memory and CPU are shown and are no bounds")
    options = parser.parse_args()
    part, slow, bounds = options.tenants / 100_000, options.factor, Bounds(options.rough)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve_upstream, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="boldgate-", dir=memory) as folder:
        many, few = pathlib.Path(folder, "many"), pathlib.Path(folder, "few")
        generate(many, options.tenants, port)
        generate(few, 100, port)
        gateway = Gateway(options.gateway, many)
        asyncio.run(ask_each(gateway.port, [0], connections=1))
        bounds.check("start to the first answer", time.monotonic() - gateway.begun, (0.5 + 2.5 * part) * slow, "s")
        gateway.settle()

        def exchanges():
            _, page = asyncio.run(ask_once(gateway.admin, "/metrics"))
            lines = (line for line in page.splitlines() if line.startswith(b'boldgate_token_exchanges_total{tenant="t'))
            return sum(int(line.rsplit(b" ", 1)[1]) for line in lines if b"success" in line)

        # The process itself takes some 20 MiB.
        bounds.check("memory, idle", gateway.resident(), 20 + 80 * part, "MiB")

        used = min(1000, options.tenants)
        asyncio.run(ask_each(gateway.port, range(used)))
        before = gateway.resident()
        fastest = 1e9
        for _ in range(5):
            begun = time.monotonic()
            _, page = asyncio.run(ask_once(gateway.admin, "/metrics"))
            fastest = min(fastest, time.monotonic() - begun)
        series = page.count(b'boldgate_http_requests_total{tenant="t')
        assert series >= used, (series, used)
        bounds.check(f"page of metrics with {used} tenants used", len(page) / 1e6, 2, "MB")
        bounds.check("the same, the fastest of five", fastest * 1000, 100 * slow, "ms")
        gateway.settle()
        bounds.check("memory after it, more than before", gateway.resident() - before, 5, "MiB")

        asyncio.run(ask_each(gateway.port, range(options.tenants)))
        gateway.settle()
        bounds.check(f"memory, all {options.tenants} tokens cached", gateway.resident(), 20 + 180 * part, "MiB")

        other = Gateway(options.gateway, few)
        asyncio.run(ask_each(other.port, range(100)))
        spent = {gateway: [], other: []}
        for _ in range(5):
            for of, tenants in ((gateway, options.tenants), (other, 100)):
                step = max(1, tenants // options.requests)
                numbers = [number * step % tenants for number in range(options.requests)]
                begun = of.cpu()
                asyncio.run(ask_each(of.port, numbers))
                spent[of].append((of.cpu() - begun) / options.requests * 1e6)
        other.stop()
        of_many, of_few = min(spent[gateway]), min(spent[other])
        print(f"CPU of a warm request: {of_many:.1f} µs, with 100 tenants {of_few:.1f} µs")
        bounds.check("the same, as a ratio", of_many / of_few, 1.10, "")
        assert exchanges() == options.tenants, f"{exchanges()}: tokens were not kept"

        write(many / "secrets/snew", "another-secret\n")
        new = "/bi/api/site/snew/v5.0/items"
        write(many / "tenants.d/new.yaml", "new: { site: snew }\n")
        bounds.check("a new tenant in force", asyncio.run(until(gateway.port, new, 200)), 1 * slow, "s")
        gateway.settle()
        (many / "tenants.d/new.yaml").unlink()
        bounds.check("a tenant removed", asyncio.run(until(gateway.port, new, 404)), 1 * slow, "s")
        assert exchanges() == options.tenants, f"{exchanges()}: a change of one tenant has touched others"
        gateway.stop()
    server.terminate()
    if bounds.broken:
        sys.exit(f"not within bounds: {', '.join(bounds.broken)}")


if __name__ == "__main__":
    main()
