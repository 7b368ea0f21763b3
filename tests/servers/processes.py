"""A server of a stack: its folder, its process, its log; started, waited for, signalled.

A process is known to be ours by a variable in its environment that names its folder. So nothing of anyone else's is ever
signalled, and our own are found even when their folder has been removed under them (`cargo clean`) or a start was cut off.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

MARK = "TALLYMARK_STACK_SERVER"
LOG_LINES, LOG_WIDTH = 25, 300  # of a log, in a message


class Failure(Exception):
    """What went wrong, and what to do; printed as it is, exit code 1."""


class Server:
    """One server. A subclass says how it is prepared, run, and asked whether it answers."""

    kind = ""

    def __init__(self, stack_dir, tools, entry):
        self.entry = entry
        self.tools = tools
        self.name = entry["name"]
        self.host = entry["host"]
        self.port = entry["port"]
        self.dir = Path(stack_dir) / self.name
        self.log = self.dir / "log"

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def prepare(self):
        """Writes configuration and formats what needs it, once, before the first start."""

    def command(self):
        raise NotImplementedError

    def check(self):
        """Returns when the server answers; raises OSError or Failure when not (yet)."""
        raise NotImplementedError

    def check_whole(self):
        """Returns when it also knows all others of its kind, as they know it."""
        self.check()

    # -- process -----------------------------------------------------------------------------------------------------

    def pid(self):
        found = [pid for pid, place in marked() if place == str(self.dir)]
        return found[0] if found else None

    def state(self):
        """`up`, `stopped` (by SIGSTOP), `silent` (runs, does not answer), `down`."""
        pid = self.pid()
        if pid is None:
            return "down"
        if run_state(pid) in "Tt":
            return "stopped"
        try:
            self.check()
        except (OSError, Failure):
            return "silent"
        return "up"

    def spawn(self):
        (self.dir / "tmp").mkdir(parents=True, exist_ok=True)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("TALLYMARK_")}
        variables |= {MARK: str(self.dir), "TMPDIR": str(self.dir / "tmp")}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                cwd=self.dir,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that the terminal's Ctrl-C is not theirs
            )
        (self.dir / "pid").write_text(f"{process.pid}\n")
        return process

    def wait(self, process, deadline):
        """Until it answers; a process that ends, or a deadline that passes, is a failure with the log's last lines."""
        self.until(self.check, deadline, process)

    def settle(self, deadline):
        """Until it knows the others too."""
        self.until(self.check_whole, deadline)

    def until(self, check, deadline, process=None):
        while True:
            if process and process.poll() is not None:
                raise Failure(f"{self.name} ended with {process.returncode} before it answered.\n{self.last_lines()}")
            try:
                return check()
            except (OSError, Failure) as error:
                if time.monotonic() > deadline:
                    raise Failure(f"{self.name} at {self.address} is not ready in time: {error}\n{self.last_lines()}") from None
            time.sleep(0.1)

    def send(self, number):
        pid = self.pid()
        if pid is None:
            raise Failure(f"{self.name} does not run; tests/stack start {self.name}")
        os.kill(pid, number)
        return pid

    def last_lines(self):
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError as error:
            return f"(its log could not be read: {error})"
        return "\n".join([f"The last lines of {self.log}:", *(f"  {line[:LOG_WIDTH]}" for line in lines)])


def frugal(alike):
    """Flags of Java for one of several alike, which share the machine's cores: up sooner, slower once it is warm."""
    return ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] if alike > 1 else []


def marked():
    """The living processes that a stack started, with the folder of each."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            variables = Path("/proc", entry, "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's, or gone
        for variable in variables:
            name, _, value = variable.partition(b"=")
            if name == MARK.encode():
                yield int(entry), os.fsdecode(value)


def run_state(pid):
    """The letter that the kernel gives: R, S, D, T (stopped), Z …; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def kill_all(pids, seconds=20):
    """Kills and waits until they are gone. What they held is thrown away, so nothing is asked to end politely."""
    pids = list(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + seconds
    while any(run_state(pid) not in "XZ" for pid in pids):
        if time.monotonic() > deadline:
            raise Failure(f"these processes do not end after SIGKILL: {pids}")
        time.sleep(0.02)


def exchange(address, request, read_answer, seconds=3):
    """One request on a connection of its own; `read_answer` is given a function that reads exactly so many bytes."""
    deadline = time.monotonic() + seconds
    with socket.create_connection(address, timeout=seconds) as connection:

        def read(count):
            parts = b""
            while len(parts) < count:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                part = connection.recv(count - len(parts))
                if not part:
                    raise ConnectionError("it closed the connection")
                parts += part
            return parts

        connection.sendall(request)
        return read_answer(read, connection.sendall)
