"""The reward file that a verify command may leave, as Harbor has it: ``reward.json`` before ``reward.txt``.

The folder is made new right before verify runs, when the agent is dead, and its path is in ``$TATIN_REWARD_DIR``: what
an agent planted is gone (A71). ``reward.txt`` holds one number; ``reward.json`` an object of numbers, of which the one
called ``reward`` (or the only one) counts. 1 or more is a pass. What is in the file is the guest's: read within limits.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from tatin_jobs.results import write_durably
from worker.redaction import Redactor
from worker.sandboxes.base import GUEST_RUN, Sandbox
from worker.sandboxes.transfer import make_new_folder

REWARD_DIR = f"{GUEST_RUN}/reward"
REWARD_VARIABLE = "TATIN_REWARD_DIR"
PASS = 1.0
MAX_BYTES = 64 * 1024
MAX_REWARDS = 64
NAME_CHARACTERS = 100
_SECONDS = 60
_READ = """
cd "$0" 2>/dev/null || exit 0
for name in reward.json reward.txt; do
    if [ -e "$name" ] || [ -L "$name" ]; then
        printf '%s\\n' "$name"
        if [ -f "$name" ] && [ ! -L "$name" ]; then head -c "$1" -- "$name"; fi
        exit 0
    fi
done
"""


@dataclass(frozen=True)
class Reward:
    """``reward`` is the number that counts; None when the file cannot be used, and then ``problem`` says why."""

    reward: float | None
    rewards: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the work is good."""
        return self.reward is not None and self.reward >= PASS


async def make_reward_folder(sandbox: Sandbox) -> None:
    """An empty folder, whatever was there before. Raises SandboxError when the guest cannot make it."""
    await make_new_folder(sandbox, REWARD_DIR)


async def read_reward(sandbox: Sandbox, folder: Path, redactor: Redactor) -> Reward | None:
    """What verify left, a copy of it without secrets kept in ``folder``; None when it left no reward file.

    Raises:
        SandboxError: the sandbox died.
    """
    argv = ["/bin/sh", "-c", _READ, REWARD_DIR, str(MAX_BYTES + 1)]
    done = await sandbox.run(argv, cwd="/", timeout_seconds=_SECONDS, max_output_bytes=MAX_BYTES + 1024)
    name, _, data = done.stdout.partition(b"\n")
    if name not in (b"reward.json", b"reward.txt"):
        return None
    if len(data) > MAX_BYTES:
        return Reward(None, problem=f"{name.decode()} has more than {MAX_BYTES // 1024} KiB.")
    write_durably(folder / name.decode(), redactor.data(data))
    return parse_json(data) if name == b"reward.json" else parse_text(data)


def parse_text(data: bytes) -> Reward:
    """``reward.txt``."""
    try:
        number = float(data)
    except ValueError:
        return Reward(None, problem="reward.txt holds no number." if data.strip() else "reward.txt is empty.")
    if not math.isfinite(number):
        return Reward(None, problem="reward.txt holds no finite number.")
    return Reward(number, {"reward": number})


def parse_json(data: bytes) -> Reward:
    """``reward.json``."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return Reward(None, problem="reward.json is not JSON.")
    if not isinstance(found, dict) or not found or not all(_is_number(value) for value in found.values()):
        return Reward(None, problem='reward.json is not an object of numbers, as {"reward": 1}.')
    if len(found) > MAX_REWARDS or any(len(name) > NAME_CHARACTERS for name in found):
        return Reward(None, problem=f"reward.json has more than {MAX_REWARDS} rewards, or names that are too long.")
    rewards = {name: float(value) for name, value in found.items()}
    if "reward" not in rewards and len(rewards) > 1:
        return Reward(None, rewards, "reward.json has several rewards, and none of them is called `reward`.")
    return Reward(rewards.get("reward", next(iter(rewards.values()))), rewards)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False
