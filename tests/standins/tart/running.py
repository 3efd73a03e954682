"""``run``: the process that is the VM. It holds the lock of ``config.json`` and never opens that file again, as closing
it would let go of the lock."""

from __future__ import annotations

import argparse
import fcntl
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.standins.tart.addresses import take_lease
from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import FAILED, MISSING, TartFailure, UsageFailure, unprefixed_in_validate
from tests.standins.tart.guests import AGENT_NOTE, FOLDER, programs
from tests.standins.tart.storage import SUSPENDED, VM, Home, new_mac

NETWORKS = ("net_bridged", "net_softnet", "net_host")
_HEARD = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_VZ = 'Error Domain=VZErrorDomain Code={code} "{text}" UserInfo={{}}'
LOOK_SECONDS = 0.05


def run(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the handler is in place, just after the lock
    vm = _validate(home, options)
    with home.locked():
        config = _prepare(home, dials, vm)
        lock = _lock(vm)
        (vm.path / FOLDER / AGENT_NOTE).unlink(missing_ok=True)  # of an earlier run
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        if not dials.get("stop_ignored"):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        Machine(home, dials, vm, config, options).run()
    finally:
        lock.close()


def _validate(home: Home, options: argparse.Namespace) -> VM:
    try:
        vm = home.vm(options.name)
    except TartFailure as failure:
        raise unprefixed_in_validate(failure) from failure
    softnet = ("net_softnet_allow", "net_softnet_block", "net_softnet_expose")
    options.net_softnet = options.net_softnet or any(getattr(options, name) for name in softnet)
    if sum(bool(getattr(options, name)) for name in NETWORKS) > 1:
        raise UsageFailure("--net-bridged, --net-softnet and --net-host are mutually exclusive", "run")
    if options.suspendable and vm.config["os"] == "linux":
        raise UsageFailure("You can only suspend macOS VMs", "run")
    unnamed: dict[str, int] = {}
    for text in options.dir:
        name, _, tag = parse_dir(text)
        unnamed[tag] = unnamed.get(tag, 0) + (not name)
    if any(unnamed[tag] and sum(parse_dir(text)[2] == tag for text in options.dir) > 1 for tag in unnamed):
        text = "invalid --dir syntax: for multiple directory shares each one of them should be named"
        raise UsageFailure(text, "run")
    return vm


def parse_dir(text: str) -> tuple[str, str, str]:
    """(name, path, tag) of ``[NAME:]PATH[:ro][,tag=TAG]``: the last part is options if it reads as such."""
    tag = "com.apple.virtio-fs.automount"
    head, colon, last = text.rpartition(":")
    pieces = last.split(",")
    if colon and any(piece == "ro" or piece.startswith("tag=") for piece in pieces):
        text = head
        tag = next((piece[4:] for piece in pieces if piece.startswith("tag=")), tag)
    name, colon, path = text.partition(":")
    return (name, path, tag) if colon else ("", text, tag)


def _prepare(home: Home, dials: Dials, vm: VM) -> dict[str, Any]:
    """What is checked before the lock; and a new MAC where a running VM has this one."""
    if vm.running_pid() is not None:
        raise TartFailure(f'VM "{vm.name}" is already running!', MISSING)
    others = [other for other in home.local() if other.name != vm.name and other.running_pid() is not None]
    limit = dials.get("vm_limit")
    if limit is not None and len(others) >= limit:
        names = ", ".join(other.name for other in others)
        raise TartFailure(f"The number of VMs exceeds the system limit (other running VMs: {names})")
    config = vm.config
    if config["cpuCount"] > dials.get("max_cpus", 10**6):
        raise TartFailure("Error: Invalid virtual machine configuration. The number of CPUs is too large.")
    if config["memorySize"] > dials.get("max_memory_mib", 10**9) * 2**20:
        raise TartFailure("Error: Invalid virtual machine configuration. The memory size is too large.")
    if any(other.config["macAddress"] == config["macAddress"] for other in others):
        print("There is already a running VM with the same MAC address!")
        print("Resetting VM to assign a new MAC address...", flush=True)
        config["macAddress"] = new_mac()
        vm.write_config(config)
    return config


def _lock(vm: VM) -> IO[bytes]:
    file = (vm.path / "config.json").open("rb+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TartFailure(f'VM "{vm.name}" is already running!', MISSING) from error
    return file


class Machine:
    """The VM from its start to its end."""

    def __init__(
        self, home: Home, dials: Dials, vm: VM, config: Mapping[str, Any], options: argparse.Namespace
    ) -> None:
        self._home = home
        self._dials = dials
        self._vm = vm
        self._config = config
        self._options = options
        self._guest: subprocess.Popen[bytes] | None = None
        self._programs = programs(dials, vm)
        self._fields: dict[str, str] = {}
        self._started = time.monotonic()

    def run(self) -> None:
        """Ends the process, or returns when the guest has powered off."""
        self._fail_to_start()
        (self._vm.path / SUSPENDED).unlink(missing_ok=True)
        self._make_control_socket()
        if self._options.vnc or self._options.vnc_experimental:
            print("VNC server is running at vnc://:password@127.0.0.1:5900...", flush=True)
        if self._dials.get("helper_survives"):
            self._leave_helper()
        while True:
            self._go_on_booting()
            self._hear(signal.sigtimedwait(_HEARD, LOOK_SECONDS))
            if self._has_ended():
                return

    def _fail_to_start(self) -> None:
        text = self._dials.get("start_error")
        for shared in self._options.dir:
            if not Path(parse_dir(shared)[1]).is_dir():
                text = _VZ.format(code=2, text="A directory sharing device configuration is invalid.")
        if text is not None:
            time.sleep(0.2)
            raise TartFailure(str(text), FAILED)

    def _make_control_socket(self) -> None:
        path = self._vm.path / "control.sock"
        path.unlink(missing_ok=True)
        self._control = socket.socket(socket.AF_UNIX)
        with suppress(OSError):  # a path that is too long for a socket
            self._control.bind(str(path))

    def _leave_helper(self) -> None:
        with self._vm.disk.open("rb") as disk:
            helper = subprocess.Popen(["sleep", "600"], stdin=disk, stdout=subprocess.DEVNULL, start_new_session=True)
        with (self._home.path / "standin-helpers").open("a") as file:
            file.write(f"{helper.pid}\n")

    # The guest

    def _go_on_booting(self) -> None:
        """An address some time after the start, and the guest's program some time after that."""
        age = time.monotonic() - self._started
        lease_after = self._dials.seconds("lease_after", 0.1)
        if not self._fields and age >= lease_after:
            address = None
            if not self._dials.get("no_lease"):
                address = take_lease(self._home, self._dials, self._config["macAddress"])
            self._fields = guest_fields(self._vm, self._config, address or "127.64.255.254")
            self._fields["network"] = "softnet" if self._options.net_softnet else "nat"
        if self._guest is None and self._fields and age >= lease_after + self._dials.seconds("guest_after"):
            if program := self._programs.get("argv"):
                self._guest = self._start(program)

    def _start(self, program: Sequence[str]) -> subprocess.Popen[bytes]:
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *filled(program, self._fields)]
        with (self._vm.path / "guest.log").open("ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_unblock, cwd=self._vm.path
            )

    def _has_ended(self) -> bool:
        age = time.monotonic() - self._started
        status = self._guest.poll() if self._guest else None
        error = self._dials.get("dies_after")
        if (error is not None and age >= error) or status not in (None, 0):
            self._end_guest()
            print("guest has stopped the virtual machine due to error: The virtual machine stopped unexpectedly.")
            return True
        off = self._dials.get("powers_off_after")
        if (off is not None and age >= off) or status == 0:
            self._power_off()
            return True
        return False

    def _power_off(self) -> None:
        self._end_guest()
        print("guest has stopped the virtual machine", flush=True)

    def _end_guest(self) -> None:
        if self._guest:
            self._guest.kill()
            self._guest.wait()

    # Signals

    def _hear(self, heard: signal.struct_siginfo | None) -> None:
        if heard is None:
            return
        if heard.si_signo == signal.SIGINT and not self._dials.get("stop_ignored"):
            print("Stopping VM...", flush=True)
            self._end_guest()
            _leave(0)
        elif heard.si_signo == signal.SIGUSR1:
            print("Failed to suspend the VM: Invalid virtual machine configuration.", flush=True)
            self._end_guest()
            _leave(1)
        elif heard.si_signo == signal.SIGUSR2:
            print("Requesting guest OS to stop...", flush=True)
            self._press_power_button()

    def _press_power_button(self) -> None:
        """The guest decides."""
        if self._dials.get("ignores_acpi"):
            return
        if self._guest and (button := self._programs.get("power_button")):
            subprocess.run(filled(button, self._fields | {"guest": str(self._guest.pid)}), check=False)
        else:
            self._power_off()
            _leave(0)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    raise SystemExit(code)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def guest_fields(vm: VM, config: Mapping[str, Any], address: str) -> dict[str, str]:
    """What is filled into the programs of a guest."""
    return {
        "disk": str(vm.disk),
        "folder": str(vm.path),
        "name": vm.name,
        "address": address,
        "cpus": str(config["cpuCount"]),
        "memory_mib": str(config["memorySize"] // 2**20),
        "mac": str(config["macAddress"]),
    }


def filled(argv: Sequence[str], fields: Mapping[str, str]) -> list[str]:
    """``{field}`` replaced; other braces stay as they are."""
    for name, value in fields.items():
        argv = [text.replace("{" + name + "}", value) for text in argv]
    return list(argv)
