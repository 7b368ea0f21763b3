"""Kafka in KRaft mode. One broker, or several: the first three are the controllers too, so that any one may fail.

Each has two more listeners, which advertise addresses where nothing listens: a test's proxies do. Whoever begins at the proxies
of one is led through them to every broker.
"""

import base64
import os
import struct
import subprocess

from processes import Failure, Server, exchange, frugal

CONTROLLERS = 3
LINKS = 2


def entries(count, host, ports, pick):
    """What the stack remembers of each broker."""
    cluster = "-"
    while cluster.startswith("-"):  # Kafka takes that for a flag
        cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    # Two voters would stand still without either: below three brokers the first alone is the controller.
    controllers = CONTROLLERS if count >= CONTROLLERS else 1
    voters = [pick([host]) for _ in range(controllers)]
    return [
        {
            "name": f"kafka-{node}",
            "kind": "kafka",
            "host": host,
            "port": ports[node - 1],
            "node": node,
            "brokers": count,
            "cluster": cluster,
            "voters": voters,
            "links": [{"port": pick([host]), "proxy_port": pick([host])} for _ in range(LINKS)],
        }
        for node in range(1, count + 1)
    ]


class Kafka(Server):
    kind = "kafka"

    def links(self):
        """Each further listener: where its clients are sent, and where it is."""
        return [(f"{self.host}:{link['proxy_port']}", f"{self.host}:{link['port']}") for link in self.entry["links"]]

    def settings(self):
        entry = self.entry
        node, voters = entry["node"], entry["voters"]
        controller = node <= len(voters)
        links = list(enumerate(self.links(), 1))
        listeners = [f"PLAINTEXT://{self.address}", *(f"LINK{n}://{listens}" for n, (_, listens) in links)]
        advertised = [f"PLAINTEXT://{self.address}", *(f"LINK{n}://{proxy}" for n, (proxy, _) in links)]
        plain = ["PLAINTEXT", "CONTROLLER", *(f"LINK{n}" for n, _ in links)]
        if controller:
            listeners.append(f"CONTROLLER://{self.host}:{voters[node - 1]}")
        copies = min(3, entry["brokers"])
        return {
            "process.roles": "broker,controller" if controller else "broker",
            "node.id": node,
            "controller.quorum.voters": ",".join(f"{id}@{self.host}:{port}" for id, port in enumerate(voters, 1)),
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in plain),
            "log.dirs": self.dir / "data",
            "offsets.topic.replication.factor": copies,
            # A group's coordinator moves with all that is in its partition of this topic: few of them move soon.
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            # Half of this heap otherwise, at once: with many topics a broker that started again found no room for it.
            "log.cleaner.dedupe.buffer.size": 4 << 20,
            # A broker that was killed may come back once its old registration has expired: soon, for the fault tests.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }

    def prepare(self):
        self.dir.mkdir(parents=True)
        settings = self.dir / "server.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in self.settings().items()))
        with self.log.open("wb") as log:
            tool = ["kafka.tools.StorageTool", "format", "-t", self.entry["cluster"], "-c", settings]
            done = subprocess.run([*self.java("128m"), *tool], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode != 0:
            raise Failure(f"{self.name}: its storage could not be formatted.\n{self.last_lines()}")

    def java(self, heap):
        return [
            self.tools["java"],
            f"-Xms{heap}",
            f"-Xmx{heap}",
            "-XX:-UsePerfData",  # leaves a file in /tmp when it is killed
            *frugal(self.entry["brokers"]),
            f"-Djava.io.tmpdir={self.dir}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            f"{self.tools['kafka']}/*",
        ]

    def command(self):
        return [*self.java(self.entry["heap"]), "kafka.Kafka", self.dir / "server.properties"]

    def brokers(self):
        return exchange((self.host, self.port), metadata_request(), lambda read, _: metadata_brokers(read))

    def check(self):
        """It names itself: so it is registered, unfenced, and has the metadata."""
        if self.entry["node"] not in self.brokers():
            raise Failure("it is not part of its cluster yet")

    def check_whole(self):
        known = self.brokers()
        if len(known) != self.entry["brokers"]:
            raise Failure(f"it knows {len(known)} of {self.entry['brokers']} brokers")


def metadata_request():
    """Metadata, version 4, of no topic."""
    body = struct.pack(">hhi", 3, 4, 1) + struct.pack(">h", 5) + b"stack" + struct.pack(">i?", 0, False)
    return struct.pack(">i", len(body)) + body


def metadata_brokers(read):
    """The ids of the brokers in the answer."""
    (length,) = struct.unpack(">i", read(4))
    answer = read(length)
    at = 8  # past the correlation id and the throttle time
    (count,) = struct.unpack_from(">i", answer, at)
    at += 4
    ids = []
    for _ in range(count):
        node, host = struct.unpack_from(">ih", answer, at)
        at += 6 + host + 4
        (rack,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(0, rack)
        ids.append(node)
    return ids
