"""Redis. It keeps nothing on disk, as a cache does: after `kill` and `start` it is empty."""

from processes import Failure, Server, exchange


def entries(host, port):
    """What the stack remembers of it."""
    return [{"name": "redis", "kind": "redis", "host": host, "port": port}]


class Redis(Server):
    kind = "redis"

    def prepare(self):
        self.dir.mkdir(parents=True)

    def command(self):
        settings = {
            "bind": self.host,
            "port": self.port,
            "dir": self.dir,
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            # A title of its own would be written over the environment that it is known by.
            "set-proc-title": "no",
            # Long listpacks are scanned from the start at every access.
            "hash-max-listpack-entries": 16,
        }
        return [self.tools["redis_server"], *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]

    def check(self):
        answer = exchange((self.host, self.port), b"PING\r\n", lambda read, _: read(7))
        if answer != b"+PONG\r\n":
            raise Failure(f"it answers PING with {answer!r}")
