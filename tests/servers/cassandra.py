"""Cassandra, which stands for ScyllaDB: a node on each of 127.0.0.1, .2, .3 …, all with the same CQL port, as drivers expect."""

import struct

from processes import Failure, Server, exchange, frugal

EXPORTS = """
    java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry
    java.rmi/sun.rmi.server java.rmi/sun.rmi.transport.tcp java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc
""".split()

OPENS = """
    java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect
    java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/sun.nio.ch java.base/java.io
    java.base/java.lang java.base/java.util java.base/java.util.concurrent java.base/java.util.concurrent.atomic java.base/java.nio
    java.base/java.net java.base/java.lang.reflect jdk.management/com.sun.management.internal
""".split()

YAML = """\
cluster_name: tallymark
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
auto_bootstrap: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "{seed}:{storage_port}"
listen_address: {host}
storage_port: {storage_port}
rpc_address: {host}
native_transport_port: {port}
data_file_directories: ["{dir}/data"]
commitlog_directory: "{dir}/commitlog"
saved_caches_directory: "{dir}/saved_caches"
hints_directory: "{dir}/hints"
cdc_raw_directory: "{dir}/cdc_raw"
commitlog_sync: periodic
commitlog_sync_period: 1000ms
endpoint_snitch: SimpleSnitch
authenticator: AllowAllAuthenticator
authorizer: AllowAllAuthorizer
auto_snapshot: false
memtable_heap_space: 128MiB
memtable_offheap_space: 128MiB
file_cache_size: 64MiB
key_cache_size: 16MiB
concurrent_reads: 8
concurrent_writes: 16
"""

LOGBACK = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""


def entries(hosts, port, heap, pick):
    """What the stack remembers of each node."""
    storage = pick(hosts)
    return [
        {
            "name": f"store-{node}",
            "kind": "store",
            "host": host,
            "port": port,
            "nodes": len(hosts),
            "seed": hosts[0],
            "storage_port": storage,
            "jmx_port": pick(["127.0.0.1"]),
            "heap": heap,
        }
        for node, host in enumerate(hosts, 1)
    ]


class Cassandra(Server):
    kind = "store"

    def prepare(self):
        self.dir.mkdir(parents=True)
        (self.dir / "cassandra.yaml").write_text(YAML.format(dir=self.dir, **self.entry))
        (self.dir / "logback.xml").write_text(LOGBACK)

    def command(self):
        jars, heap = self.tools["cassandra"], self.entry["heap"]
        properties = {
            "cassandra.config": f"file://{self.dir}/cassandra.yaml",
            "cassandra.storagedir": self.dir,
            "cassandra.logdir": self.dir,
            "cassandra.jmx.local.port": self.entry["jmx_port"],
            "cassandra.skip_wait_for_gossip_to_settle": 0,
            # How long a node that starts waits for the first answer of another: without it a second, and two that start at once
            # on a busy machine need longer ("Unable to gossip with any peers").
            "cassandra.ring_delay_ms": 10_000,
            "logback.configurationFile": f"{self.dir}/logback.xml",
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
            "java.io.tmpdir": self.dir / "tmp",
        }
        return [
            self.tools["java"],
            f"-Xms{heap}",
            f"-Xmx{heap}",
            *(frugal(self.entry["nodes"]) or ["-XX:+UseG1GC"]),
            "-Xss256k",
            # Out of memory it would otherwise stay up, broken.
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            f"-javaagent:{jars}/jamm-0.4.0.jar",
            *(f"--add-exports={module}=ALL-UNNAMED" for module in EXPORTS),
            *(f"--add-opens={module}=ALL-UNNAMED" for module in OPENS),
            *(f"-D{name}={value}" for name, value in properties.items()),
            "-cp",
            f"{jars}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def check(self):
        """It answers a query."""
        self.schemas()

    def check_whole(self):
        """It knows every other node, and all have the same schema."""
        own, others = self.schemas()
        if len(others) != self.entry["nodes"] - 1:
            raise Failure(f"it knows {len(others) + 1} of {self.entry['nodes']} nodes")
        if any(schema != own for schema in others):
            raise Failure("the nodes do not agree on the schema yet")

    def schemas(self):
        """The version of its schema, and those of the other nodes."""
        return exchange((self.host, self.port), frame(STARTUP, string_map({"CQL_VERSION": "3.0.0"})), read_schemas)


def read_schemas(read, send):
    read_frame(read)
    send(frame(QUERY, query("SELECT schema_version FROM system.local")))
    own = first_column(read_frame(read))
    send(frame(QUERY, query("SELECT schema_version FROM system.peers_v2")))
    return own[0], first_column(read_frame(read))


# -- as much of CQL's native protocol, version 4, as the check needs ----------------------------------------------------

STARTUP, QUERY, ERROR = 0x01, 0x07, 0x00
ONE = 0x0001


def frame(opcode, body):
    return struct.pack(">BBhBi", 4, 0, 0, opcode, len(body)) + body


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def string_map(pairs):
    return struct.pack(">h", len(pairs)) + b"".join(string(key) + string(value) for key, value in pairs.items())


def query(text):
    return struct.pack(">i", len(text)) + text.encode() + struct.pack(">HB", ONE, 0)


def read_frame(read):
    _, _, _, opcode, length = struct.unpack(">BBhBi", read(9))
    body = read(length)
    if opcode == ERROR:
        raise Failure(f"it answers with an error: {body[6:].decode(errors='replace')}")
    return body


def first_column(body):
    """The values of a result's only column, which is of a simple type."""
    (kind,) = struct.unpack_from(">i", body)
    if kind != 2:
        raise Failure("it answers something other than rows")
    at = 12  # past the flags and the number of columns
    for _ in ("keyspace", "table", "column"):  # named once for all or for each column: of one column it is the same
        (length,) = struct.unpack_from(">h", body, at)
        at += 2 + length
    at += 2  # the type
    (rows,) = struct.unpack_from(">i", body, at)
    at += 4
    values = []
    for _ in range(rows):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        values.append(body[at : at + max(0, length)])
        at += max(0, length)
    return values
