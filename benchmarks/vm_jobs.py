"""Jobs an hour in virtual machines of QEMU: ``python -m benchmarks.vm_jobs --image NAME [--jobs 6] [--at-once 2]
[--rounds 2]``, with the images and frozen states of TATIN_HOME.

Each job puts a small repository into a machine, runs one shell command and brings back the patch. By hand: a script
makes an overlay of the frozen state's disk, has QEMU go on from that state, sends the repository and runs the command
over OpenSSH, fetches the patch by ``tar``, and kills QEMU; run by ``xargs -P``. Both are timed in turn, in one run; the
figure is the ratio of the medians. By hand a machine keeps the host key, the clock and the machine id that all copies
have; Tatin renews them, watches the machine, and takes the patch through its unpacker into a durable result.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.batch import COMMAND, PATCH, make_repository, tatin_seconds, worker
from benchmarks.vm import CPUS, DISK_MIB, MEMORY_MIB
from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE, Need
from tatin_jobs.settings import home_from, load_settings
from tatin_jobs.store import open_store
from worker.capacity import host_arch
from worker.images.store import Image, find_image
from worker.sandboxes.qemu.accelerator import find_accelerator
from worker.sandboxes.qemu.frozen import Frozen, FrozenStates
from worker.sandboxes.qemu.machine import Shape, arguments, disk_of
from worker.ssh import worker_key

NEED = Need(cpus=CPUS, memory_mib=MEMORY_MIB, disk_mib=DISK_MIB)
FIRST_PORT = 42_000
SSH = (
    "ssh -F none -p $port -i {key} -o IdentitiesOnly=yes -o UserKnownHostsFile=$out/known -o LogLevel=ERROR "
    "-o StrictHostKeyChecking=yes -o ConnectTimeout=20 agent@127.0.0.1"
)
GO_ON = """
import json, socket, time
link = socket.socket(socket.AF_UNIX)
link.connect("qmp")
answers = link.makefile("r")
def ask(command):
    link.sendall(json.dumps({"execute": command}).encode())
    while "return" not in (answer := json.loads(answers.readline())):
        pass
    return answer["return"]
ask("qmp_capabilities")
while ask("query-status")["status"] == "inmigrate":
    time.sleep(0.03)
ask("cont")
"""
SCRIPT = """
set -e
out=$1/$2 port=$(({port} + $2))
mkdir "$out"
cd "$out"
qemu-img create -q -f qcow2 -F qcow2 -b {disk} disk.qcow2
ln -s {seed} seed.tar
echo "[127.0.0.1]:$port {host_key}" >known
{qemu} 3<{state} >qemu.log 2>&1 &
qemu=$!
until [ -e qmp ]; do sleep 0.03; done
python3 -c {go_on}
until tar -cf - -C {repository} . | {ssh} {inside}; do [ $? = 255 ]; sleep 0.2; done
{ssh} 'tar -cf - -C work changes.patch' >"$out.tar"
{{ kill -9 $qemu; wait $qemu; }} 2>/dev/null || true
rm -rf "$out"
"""


def by_hand(home: Home, image: Image, shape: Shape, frozen: Frozen, repository: Path) -> str:
    """The script; its arguments are the folder to work in and the number of the job."""
    words = arguments(shape, image, "bench-$2", frozen=3)
    line = " ".join(f'"{word}"' for word in words).replace("127.0.0.1:0-", "127.0.0.1:$port-")
    inside = f"mkdir -p work/repo && cd work/repo && tar -xmf - && {COMMAND} && {PATCH}"
    return SCRIPT.format(
        port=FIRST_PORT,
        disk=disk_of(frozen.folder),
        seed=frozen.folder / "seed.tar",
        state=frozen.state,
        host_key=" ".join(frozen.host_key.split()[:2]),
        qemu=line,
        go_on=shlex.quote(GO_ON),
        repository=repository,
        ssh=SSH.format(key=home.machines / "ssh_key"),
        inside=shlex.quote(inside),
    )


def by_hand_seconds(script: str, work: Path, jobs: int, at_once: int) -> float:
    """Wall time of the jobs by hand."""
    out = Path(tempfile.mkdtemp(prefix="hand-", dir=work))
    (out / "job.sh").write_text(script)
    started = time.perf_counter()
    subprocess.run(
        ["xargs", "-P", str(at_once), "-I", "{}", "bash", str(out / "job.sh"), str(out), "{}"],
        input="\n".join(str(number) for number in range(jobs)).encode(),
        check=True,
    )
    seconds = time.perf_counter() - started
    assert len([path for path in out.glob("*.tar") if path.stat().st_size > 1024]) == jobs
    shutil.rmtree(out)
    return seconds


def measure(machines: Home, image_name: str, jobs: int, at_once: int, rounds: int) -> None:
    image, found = find_image(machines, image_name), find_accelerator(machines.machines)
    shape = Shape(host_arch(), found.name, found.qemu, image.note.digest, CPUS, MEMORY_MIB)
    key = worker_key(machines.machines / "ssh_key")
    frozen = asyncio.run(FrozenStates(machines).get(shape, image, key))
    with tempfile.TemporaryDirectory(prefix="tatin-bench-") as folder:
        work = Path(folder)
        repository = make_repository(work / "repo")
        script = by_hand(machines, image, shape, frozen, repository)
        home = Home(work / "home")
        home.prepare()
        for name in {image_name, DEFAULT_IMAGE}:  # a worker wants the one that jobs get which name none
            (home.images / name).symlink_to(machines.images / image_name)
        home.machines.rmdir()
        home.machines.symlink_to(machines.machines)
        os.environ |= {"TATIN_SANDBOX": "qemu", "TATIN_DISK_FLOOR": "1000"}
        settings = load_settings(
            {**os.environ, "TATIN_HOME": str(home.root)}, {"cpus": at_once * CPUS, "slots": at_once}
        )
        hand, ours = [], []
        with open_store(settings, home) as store, worker(settings):
            tatin_seconds(store, home, repository, at_once, NEED, image=image_name)  # the first sets things up
            for _ in range(rounds):
                hand.append(by_hand_seconds(script, work, jobs, at_once))
                ours.append(tatin_seconds(store, home, repository, jobs, NEED, image=image_name))
    print(f"{jobs} jobs, {at_once} at a time, {rounds} rounds, {os.cpu_count()} CPUs, {found.name}")
    for name, seconds in (("by hand", hand), ("Tatin", ours)):
        each = " ".join(f"{one:6.1f}" for one in seconds)
        print(f"  {name:8} {each} s; {3600 * jobs / statistics.median(seconds):.0f} jobs an hour")
    print(f"  jobs an hour, Tatin over by hand  {statistics.median(hand) / statistics.median(ours):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="tatin")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    home = home_from(os.environ)
    home.prepare()
    measure(home, chosen.image, chosen.jobs, chosen.at_once, chosen.rounds)


if __name__ == "__main__":
    main()
