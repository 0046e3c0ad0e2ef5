"""A real RADOS Gateway for tests: a Ceph of one machine whose disk is memory, started in a folder by Debian's programs.

It is stricter than moto: it refuses an `If-Match` in quotes, and signatures that are wrong.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Store

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mgr", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
BEGINS_S = 120.0
SETTINGS = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
keyring = {folder}/keyring
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
rgw data = {folder}/rgw
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
ms bind ipv6 = false
[mon.a]
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


def missing() -> list[str]:
    """The programs that this machine does not have (Debian: ceph-mon, ceph-mgr, ceph-osd, radosgw)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextlib.contextmanager
def rados_store(folder: Path) -> Iterator[Store]:
    """A gateway on a free port, with the user whose credentials the tests have; `folder` holds its state, and its path is short."""
    v1, v2, port = _free_ports(3)
    for name in ("mon", "mgr", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    settings, fsid = folder / "ceph.conf", str(uuid.uuid4())
    settings.write_text(SETTINGS.format(folder=folder, fsid=fsid, v1=v1, v2=v2, port=port))
    gateway = None
    try:
        _begin(folder, fsid, v1, v2)
        _run(
            folder, "radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=lab", "--display-name=lab",
            f"--access-key={KEY}", f"--secret-key={SECRET}",
        )  # fmt: skip  # a command
        gateway = subprocess.Popen(
            ["radosgw", "-f", "-c", settings, "-n", "client.rgw.a"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _until(lambda: _answers(port), "the gateway answers")
        yield Store(f"http://127.0.0.1:{port}")
    finally:
        if gateway is not None:
            gateway.kill()
            gateway.wait()
        for file in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text().strip("\0\n ")), 9)


def _begin(folder: Path, fsid: str, v1: int, v2: int) -> None:
    """Start the monitor, the only disk and the manager."""
    keys, monitors = str(folder / "keyring"), str(folder / "monmap")
    every = ("mon", "allow *"), ("osd", "allow *"), ("mgr", "allow *")
    users = {"mon.": every[:1], **dict.fromkeys(("client.admin", "client.rgw.a", "mgr.a", "osd.0"), every)}
    for n, (user, rights) in enumerate(users.items()):
        caps = [word for who, what in rights for word in ("--cap", who, what)]
        _run(None, "ceph-authtool", *(() if n else ("--create-keyring",)), keys, "--gen-key", "-n", user, *caps)
    address = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    _run(None, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monitors)
    _run(folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keys)
    _run(folder, "ceph-mon", "-i", "a", "--public-addr", "127.0.0.1")
    disk = str(uuid.uuid4())
    _run(folder, "ceph", "osd", "new", disk, "0")
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    _run(folder, "ceph-osd", "-i", "0")
    _run(folder, "ceph-mgr", "-i", "a")
    _until(lambda: "1 up" in _run(folder, "ceph", "-s"), "the disk is up")


def _run(folder: Path | None, program: str, *arguments: str) -> str:
    """Run a program of Ceph; with a folder, on the settings in it."""
    where = () if folder is None else ("-c", str(folder / "ceph.conf"))
    done = subprocess.run([program, *where, *arguments], capture_output=True, text=True, timeout=BEGINS_S, check=False)
    assert done.returncode == 0, (program, done.stderr[-1000:])
    return done.stdout


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + BEGINS_S
    while not is_so():
        assert time.monotonic() < end, f"not within {BEGINS_S:.0f} s: {what}"
        time.sleep(0.3)


def _free_ports(n: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
