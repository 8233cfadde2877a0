"""Servers of other projects, started for one baseline and stopped with it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from bench.lanes import end
from bench.procfs import usage
from p2pledger.primitives.errors import Unavailable

READY_S_MAX = 30.0
POSTGRES_USER = "postgres"
"""PostgreSQL refuses to run as root; its Debian package brings this user."""


@dataclass
class Servers:
    """Running servers, and how clients reach them."""

    endpoints: tuple[str, ...] = ()
    processes: list[trio.Process] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Processor time of all, those that they have started included; 0 where there are none."""
        return sum(seen.cpu_s for pid in self._pids() if (seen := usage(pid)) is not None)

    def _pids(self) -> list[int]:
        own = [process.pid for process in self.processes]
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent in own:
                own.append(int(path.parent.name))
        return own


@asynccontextmanager
async def etcd(program: str, folder: Path, ports: Sequence[int]) -> AsyncIterator[Servers]:
    """Three members on loopback, durable as they are by default. Raises Unavailable where they do not come up."""
    count = len(ports) // 2
    clients, peers = ports[:count], ports[count:]
    members = ",".join(f"m{i}=http://127.0.0.1:{peer}" for i, peer in enumerate(peers))
    servers = Servers(tuple(f"127.0.0.1:{port}" for port in clients))
    try:
        for i in range(count):
            client, peer = f"http://127.0.0.1:{clients[i]}", f"http://127.0.0.1:{peers[i]}"
            command = [program, "--name", f"m{i}", "--data-dir", str(folder / f"m{i}")]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += [
                "--initial-cluster",
                members,
                "--initial-cluster-state",
                "new",
                "--quota-backend-bytes",
                "8589934592",
            ]
            servers.processes.append(await _spawn(command, folder / f"m{i}.log"))
        await _until_listening(servers, clients)
        yield servers
    finally:
        await _end_all(servers)


@asynccontextmanager
async def postgres(initdb: str, program: str, port: int) -> AsyncIterator[Servers]:
    """One server on loopback with its defaults: fsync and synchronous_commit on. Raises Unavailable."""
    user = _postgres_user()
    folder = Path(tempfile.mkdtemp(prefix="p2pledger-bench-postgres-"))
    servers = Servers((f"postgresql://bench@127.0.0.1:{port}/postgres",))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = folder / "data"
        made = await trio.run_process(
            [initdb, "-D", str(data), "-U", "bench", "-A", "trust", "--no-instructions"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            **_as(user),
        )
        if made.returncode:
            raise Unavailable(f"initdb ended with {made.returncode}: {made.stderr.decode()[-500:]}")
        command = [program, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "max_connections=100"]
        servers.processes.append(await _spawn(command, folder / "server.log", user))
        await _until_listening(servers, [port])
        yield servers
    finally:
        await _end_all(servers)
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_user() -> pwd.struct_passwd | None:
    """Whom to run it as: None = as we are. Raises Unavailable for root without that user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError as error:
        raise Unavailable("PostgreSQL does not run as root, and there is no user postgres") from error


def _as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


async def _spawn(command: Sequence[str], log: Path, user: pwd.struct_passwd | None = None) -> trio.Process:
    with log.open("wb") as file:
        return await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            **_as(user),
        )


async def _until_listening(servers: Servers, ports: Sequence[int]) -> None:
    with trio.move_on_after(READY_S_MAX):
        for port in ports:
            while True:
                ended = next((one for one in servers.processes if one.poll() is not None), None)
                if ended is not None:
                    raise Unavailable(f"a server ended with status {ended.returncode} before it was ready")
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.1)
        return
    raise Unavailable(f"no server listens on {', '.join(map(str, ports))} after {READY_S_MAX:g} s")


async def _end_all(servers: Servers) -> None:
    with trio.CancelScope(shield=True):
        for process in servers.processes:
            await end(process)
