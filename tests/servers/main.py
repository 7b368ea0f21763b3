"""Kafka, Cassandra (for ScyllaDB) and Redis on loopback, for a developer and for tests/run.

  tests/stack up [OPTION]…          brings them up, and returns when all answer; prints the variables of DIR/env
  tests/stack down                  ends them and removes their data
  tests/stack status [--json]       each server, its address, state and pid; exit 0 when all are up, 1 when not
  tests/stack kill SERVER…          kill -9, as in a crash
  tests/stack stop SERVER           SIGSTOP: it hangs; `cont` lets it go on
  tests/stack cont SERVER           SIGCONT
  tests/stack start SERVER…         starts it again: same address, same data (Redis keeps none); several at once, for a
                                    broker does not answer before a majority is there

A SERVER is kafka-1, store-1 or redis, by the name that `status` prints.
What is missing is installed (Java 17, Maven, redis-server: by apt) or fetched (the jars: by Maven, into a cache).
"""

EXAMPLES = """\
examples:
  tests/stack up                                  one of each, on free ports
  tests/stack up --brokers 3 --store-nodes 3      Kafka and Cassandra of three
  tests/stack up --kafka-port 9092 --cql-port 9042 --redis-port 6379
  tests/stack up --dir target/other               a second stack beside the first
  tests/stack up --dir target/node --brokers 0 --redis 0      a store alone, which a test may kill
  tests/stack kill kafka-1 && tests/stack start kafka-1
  tests/stack down

Options of `up` may also be given as variables: STACK_DIR, STACK_BROKERS, STACK_STORE_NODES, STACK_REDIS, STACK_KAFKA_PORT,
STACK_CQL_PORT, STACK_REDIS_PORT, STACK_KAFKA_HEAP, STACK_STORE_HEAP.

The tests read DIR/env by themselves when it is target/stack. exit codes: 0 done, 1 failed (or not up), 2 wrong usage.
"""

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import cassandra
import kafka
import redis
from processes import Failure, kill_all, marked

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"
KINDS = {"kafka": kafka.Kafka, "store": cassandra.Cassandra, "redis": redis.Redis}
# What `up` may be given; a stack that is up with other ones is not the one that was asked for.
OPTIONS = {"brokers": 1, "store_nodes": 1, "redis": 1, "kafka_port": 0, "cql_port": 0, "redis_port": 0, "kafka_heap": "256m", "store_heap": "1g"}


def say(text):
    print(f"stack: {text}", file=sys.stderr, flush=True)


# -- the folder ----------------------------------------------------------------------------------------------------------


class Stack:
    """The folder of a stack: `stack.json` (what was asked, where each server is), `env`, and a folder for each server."""

    def __init__(self, folder):
        self.dir = Path(folder).resolve()
        self.file = self.dir / "stack.json"

    def servers(self):
        """All of them, or none when there is no stack here."""
        try:
            stored = json.loads(self.file.read_text())
        except FileNotFoundError:
            return []
        return [KINDS[entry["kind"]](self.dir, stored["tools"], entry) for entry in stored["servers"]]

    def server(self, name):
        servers = self.servers()
        for server in servers:
            if server.name == name:
                return server
        known = ", ".join(server.name for server in servers) or "none, tests/stack up first"
        raise Failure(f"no server `{name}` in {self.dir}; there is: {known}")

    def options(self):
        return json.loads(self.file.read_text())["options"]

    def processes(self):
        """Every living process of this stack, known to `stack.json` or not."""
        return [pid for pid, place in marked() if Path(place).parent == self.dir]

    def clear(self):
        kill_all(self.processes())
        if self.dir.exists():
            self.refuse_foreign()
            # The file goes last: a removal that is cut off can be taken up again.
            for entry in self.dir.iterdir():
                if entry != self.file:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            shutil.rmtree(self.dir)

    def refuse_foreign(self):
        if not self.file.exists() and any(self.dir.iterdir()):
            raise Failure(f"{self.dir} is not a stack's folder: it has files, and no stack.json. Give another --dir")

    @contextmanager
    def lock(self, create):
        """One at a time changes a stack. A folder that was removed while its lock was waited for is no lock."""
        while True:
            if create:
                self.dir.mkdir(parents=True, exist_ok=True)
            try:
                folder = os.open(self.dir, os.O_RDONLY)
            except FileNotFoundError:
                if create:
                    continue
                yield
                return
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                if self.dir.exists() and os.path.samestat(os.fstat(folder), os.stat(self.dir)):
                    yield
                    return
            finally:
                os.close(folder)


def ports_below_ephemeral():
    """So that no outgoing connection takes a server's port while it is down."""
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32768
    return range(15000, low) if low > 20000 else range(15000, 32768)


def is_free(host, port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class Ports:
    """Picks ports that are free now, none twice."""

    def __init__(self):
        self.taken = set()

    def pick(self, hosts):
        candidates = ports_below_ephemeral()
        for _ in range(10000):
            port = random.choice(candidates)
            if port not in self.taken and all(is_free(host, port) for host in hosts):
                self.taken.add(port)
                return port
        raise Failure(f"no free port was found on {', '.join(hosts)}")

    def given(self, option, port, hosts):
        for host in hosts:
            if port in self.taken or not is_free(host, port):
                raise Failure(f"--{option} {port}: something listens on {host}:{port} already. Give another port, or none")
        self.taken.add(port)
        return port


# -- commands ------------------------------------------------------------------------------------------------------------


def up(stack, arguments):
    with stack.lock(create=True):
        stack.refuse_foreign()
        servers = stack.servers()
        if servers and all(server.state() == "up" for server in servers) and (stack.dir / "env").exists():
            refuse_other_options(stack, arguments)
            say(f"already up in {stack.dir}")
        else:
            if servers or stack.processes():
                say("clearing away a stack that is not whole")
            bring_up(stack, arguments)
        print((stack.dir / "env").read_text(), end="")


def refuse_other_options(stack, arguments):
    for name, was in stack.options().items():
        asked = getattr(arguments, name)
        if asked is not None and asked != was:
            flag = name.replace("_", "-")
            raise Failure(f"already up in {stack.dir}, with --{flag} {was}: tests/stack down first, or another --dir")


def bring_up(stack, arguments):
    stack.clear()
    stack.dir.mkdir(parents=True)
    stack.file.write_text('{"options": {}, "tools": {}, "servers": []}')
    options = {name: default if getattr(arguments, name) is None else getattr(arguments, name) for name, default in OPTIONS.items()}
    tools = install()
    stored = {"options": options, "tools": tools, "servers": plan(options)}
    stack.file.write_text(json.dumps(stored, indent=2) + "\n")
    deadline = time.monotonic() + arguments.timeout
    try:
        start_all(stack.servers(), deadline)
    except BaseException:
        # The logs stay to be read; the next `up` or `down` removes them.
        kill_all(stack.processes())
        raise
    (stack.dir / "env").write_text("".join(f"{name}={value}\n" for name, value in variables(stack, tools)))
    say(f"up, in {stack.dir}")


def install():
    done = subprocess.run([HERE / "install"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure("what the servers need could not be installed, see above")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def plan(options):
    """Where each server will be."""
    ports = Ports()
    brokers, hosts = options["brokers"], [f"127.0.0.{node}" for node in range(1, options["store_nodes"] + 1)]

    def port(option, hosts, step=0):
        given = options[option.replace("-", "_")]
        return ports.given(option, given + step, hosts) if given else ports.pick(hosts)

    kafka_ports = [port("kafka-port", [HOST], step) for step in range(brokers)]
    cql, caches = port("cql-port", hosts), [port("redis-port", [HOST]) for _ in range(options["redis"])]
    return [
        *(entry | {"heap": options["kafka_heap"]} for entry in kafka.entries(brokers, HOST, kafka_ports, ports.pick)),
        *cassandra.entries(hosts, cql, options["store_heap"], ports.pick),
        *(entry for cache in caches for entry in redis.entries(HOST, cache)),
    ]


def start_all(servers, deadline):
    """All at once, but Cassandra's nodes one after the other: each joins those that are there."""
    by_kind = {kind: [server for server in servers if server.kind == kind] for kind in KINDS}
    say("starting " + ", ".join(server.name for server in servers))

    def ready(server, process):
        server.wait(process, deadline)
        say(f"{server.name} answers at {server.address}")

    def first(server):
        server.prepare()
        return server, server.spawn()

    def brokers():
        # None answers before a majority is there.
        for broker, process in list(map(first, by_kind["kafka"])):
            ready(broker, process)

    def nodes():
        for node in by_kind["store"]:
            ready(*first(node))

    def cache():
        for server in by_kind["redis"]:
            ready(*first(server))

    with ThreadPoolExecutor() as pool:
        parts = [pool.submit(part) for part in (brokers, nodes, cache)]
        try:
            for part in wait(parts, return_when=FIRST_EXCEPTION).done:
                part.result()
        except BaseException:
            # The other parts wait for servers that are not wanted any more: they end at once when those have ended.
            kill_all(pid for server in servers if (pid := server.pid()))
            raise
    for server in servers:
        server.settle(deadline)


def variables(stack, tools):
    """The lines of `env`."""
    servers = stack.servers()

    def addresses(kind):
        return ",".join(server.address for server in servers if server.kind == kind)

    def links(number):
        brokers = [server.links()[number] for server in servers if server.kind == "kafka"]
        return ",".join(f"{proxy}={broker}" for proxy, broker in brokers)

    named = [
        ("TALLYMARK_TEST_STACK", stack.dir),
        ("TALLYMARK_TEST_KAFKA", addresses("kafka")),
        # PROXY=BROKER,…: where a test's proxies are to listen, and what stands behind each.
        *((f"TALLYMARK_TEST_KAFKA_LINKS_{number + 1}", links(number)) for number in range(kafka.LINKS)),
        ("TALLYMARK_TEST_SCYLLA", addresses("store")),
        ("TALLYMARK_TEST_REDIS", addresses("redis")),
        ("TALLYMARK_TEST_REDIS_SERVER", tools["redis_server"]),
        ("TALLYMARK_TEST_JAVA", tools["java"]),
        ("TALLYMARK_TEST_KAFKA_CLASSPATH", f"{tools['kafka']}/*"),
        ("TALLYMARK_TEST_CASSANDRA_CLASSPATH", f"{tools['cassandra']}/*"),
    ]
    return [(name, value) for name, value in named if value]


def down(stack, _):
    with stack.lock(create=False):
        was = bool(stack.processes()) or stack.file.exists()
        stack.clear()
    say("down" if was else f"nothing is up in {stack.dir}")


def status(stack, arguments):
    rows = []
    for server in stack.servers():
        extra = {key: server.entry[key] for key in ("jmx_port",) if key in server.entry}
        rows.append({"name": server.name, "state": server.state(), "address": server.address, "pid": server.pid(), "log": str(server.log), **extra})
    whole = bool(rows) and all(row["state"] == "up" for row in rows)
    if arguments.json:
        print(json.dumps({"dir": str(stack.dir), "up": whole, "servers": rows}, indent=2))
        return 0 if whole else 1
    for row in rows:
        print(f"{row['name']:<9} {row['state']:<8} {row['address']:<16} {row['pid'] or '-':>8}  {row['log']}")
    if not rows:
        left = stack.processes()
        print(f"nothing is up in {stack.dir}" + (f", but processes are left over: {left}; tests/stack down ends them" if left else ""))
    return 0 if whole else 1


def kill(stack, arguments):
    servers = [stack.server(name) for name in arguments.servers]
    pids = [server.send(signal.SIGKILL) for server in servers]
    kill_all(pids)
    for server, pid in zip(servers, pids):
        say(f"{server.name} killed (pid {pid})")


def stop(stack, arguments):
    server = stack.server(arguments.server)
    say(f"{server.name} stopped (pid {server.send(signal.SIGSTOP)})")


def cont(stack, arguments):
    server = stack.server(arguments.server)
    say(f"{server.name} goes on (pid {server.send(signal.SIGCONT)})")


def start(stack, arguments):
    with stack.lock(create=False):
        servers = [stack.server(name) for name in dict.fromkeys(arguments.servers)]
        for server in servers:
            if server.pid() is not None:
                raise Failure(f"{server.name} runs already (pid {server.pid()}); `kill` ends it, `cont` wakes one that was stopped")
        deadline = time.monotonic() + arguments.timeout
        for server, process in [(server, server.spawn()) for server in servers]:
            server.wait(process, deadline)
            say(f"{server.name} answers at {server.address} (pid {server.pid()})")
        kinds = {server.kind for server in servers}
        for kind in kinds:
            alike = [other for other in stack.servers() if other.kind == kind]
            if all(other.state() == "up" for other in alike):
                # While others are down nobody can tell when all will agree.
                for other in alike:
                    other.settle(deadline)


# -- usage ---------------------------------------------------------------------------------------------------------------


def parser():
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="tests/stack", description=__doc__, epilog=EXAMPLES, formatter_class=formatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text):
        made = commands.add_parser(name, help=text, description=text, epilog=EXAMPLES, formatter_class=formatter)
        made.set_defaults(run=run)
        folder = os.environ.get("STACK_DIR", ROOT / "target" / "stack")
        made.add_argument("--dir", default=folder, help="folder of the stack (default target/stack)")
        return made

    def number(least, most):
        def parse(text):
            if not text.isdigit() or not least <= int(text) <= most:
                raise argparse.ArgumentTypeError(f"{text}: a whole number from {least} to {most} is wanted")
            return int(text)

        return parse

    def option(made, name, parse, text):
        preset = os.environ.get("STACK_" + name.upper().replace("-", "_")) or None
        made.add_argument(f"--{name}", type=parse, default=preset, metavar="N", help=text)

    made = command("up", up, "brings the servers up and returns when all answer")
    option(made, "brokers", number(0, 9), "Kafka brokers (default 1); from three on, three are controllers too")
    option(made, "store-nodes", number(1, 9), "Cassandra nodes (default 1), on 127.0.0.1, 127.0.0.2 …")
    option(made, "redis", number(0, 1), "1 with Redis (default), 0 without")
    option(made, "kafka-port", number(1, 65535), "port of the first broker, the others follow (default: free ones)")
    option(made, "cql-port", number(1, 65535), "CQL port of every node (default: a free one)")
    option(made, "redis-port", number(1, 65535), "port of Redis (default: a free one)")
    option(made, "kafka-heap", str, "heap of each broker (default 256m)")
    option(made, "store-heap", str, "heap of each Cassandra node (default 1g)")
    made.add_argument("--timeout", type=number(1, 3600), default=180, metavar="SECONDS", help="how long they may take (default 180)")
    command("down", down, "ends the servers and removes their data")
    command("status", status, "prints each server; exit 0 when all are up").add_argument("--json", action="store_true", help="as JSON")
    for name, run, text in (
        ("kill", kill, "kill -9 of servers"),
        ("stop", stop, "SIGSTOP to one server: it hangs"),
        ("cont", cont, "SIGCONT to one server that was stopped"),
        ("start", start, "starts servers again, with their addresses and their data"),
    ):
        made = command(name, run, text)
        if name in ("kill", "start"):
            made.add_argument("servers", metavar="SERVER", nargs="+", help="kafka-1, store-1, redis …")
        else:
            made.add_argument("server", metavar="SERVER", help="kafka-1, store-1, redis …")
        if name == "start":
            made.add_argument("--timeout", type=number(1, 3600), default=180, metavar="SECONDS", help="how long they may take (default 180)")
    return top


def main():
    # A polite end takes the same way as Ctrl-C: what was begun is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parser().parse_args()
    try:
        return arguments.run(Stack(arguments.dir), arguments)
    except Failure as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
