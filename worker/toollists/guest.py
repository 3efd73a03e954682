"""Run in the guest: ``guest.py TOOL...`` prints, as JSON, the addresses that each tool is set up to use.

Standard library only, Python 3.9 or newer. Nothing here knows an address: every one comes from the tool, from its
configuration in this system and in the job's environment. Output: {tool: {"addresses": [...], "seen": "why none"}}.
"""

import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SECONDS = 60
SOME_CRATE = "cfg-if"
"""Cargo tells where crates come from only when it wants one. Which one does not matter."""


def run(*argv, cwd=None):
    env = {**os.environ, "CARGO_NET_RETRY": "0", "CARGO_HTTP_TIMEOUT": "20"}
    done = subprocess.run(argv, capture_output=True, timeout=SECONDS, cwd=cwd, env=env)
    return done.stdout.decode(errors="replace")


def pip():
    """pip's own parser knows its files, its variables and its defaults."""
    if importlib.util.find_spec("pip") is None:
        sys.path.insert(0, bundled_pip())
    from pip._internal.commands import create_command
    from pip._internal.models.index import PyPI

    options, _ = create_command("download").parse_args([])
    found = [*options.find_links]
    if not options.no_index:
        found += [options.index_url, *options.extra_index_urls]
    if any(f"//{PyPI.netloc}/" in address for address in found):
        found.append(f"https://{PyPI.file_storage_domain}")
    return found


def bundled_pip():
    """The pip that a new virtual environment would get, where Python itself has none."""
    import ensurepip

    folders = (os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), "/usr/share/python-wheels")
    return sorted(wheel for folder in folders for wheel in glob.glob(f"{folder}/pip-*.whl"))[-1]


def npm():
    values = json.loads(run("npm", "config", "list", "--long", "--json"))
    return [value for name, value in values.items() if name == "registry" or name.endswith(":registry")]


def apt():
    """What it would fetch. (`indextargets` is empty where nothing was fetched yet, as in a fresh image: apt 3.)"""
    return re.findall(r"^'([^']+)'", run("apt-get", "update", "--print-uris"), re.MULTILINE)


def go():
    settings = json.loads(run("go", "env", "-json", "GOPROXY", "GOSUMDB"))
    proxies = re.split(r"[,|]", settings["GOPROXY"])
    name, *address = settings["GOSUMDB"].split()
    database = address[0] if address else f"https://{name.partition('+')[0]}"
    return [*proxies, *([] if name == "off" else [database])]


def cargo():
    """Cargo prints its registry nowhere, so it is let try: the worker sees where it turns to, and lets it go there the
    next time, when it reads from its index where the crates are."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/src")
        open(f"{folder}/src/lib.rs", "w").close()
        with open(f"{folder}/Cargo.toml", "w") as file:
            file.write(f'[package]\nname = "x"\nversion = "0.0.0"\n[dependencies]\n{SOME_CRATE} = "*"\n')
        run("cargo", "fetch", cwd=folder)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    found = []
    for path in glob.glob(f"{home}/registry/index/*/config.json"):
        with open(path) as file:
            settings = json.load(file)
        found += [settings[name] for name in ("dl", "api") if settings.get(name)]
    return found


TOOLS = {"pip": pip, "npm": npm, "apt": apt, "go": go, "cargo": cargo}
PROGRAMS = {"npm": "npm", "apt": "apt-get", "go": "go", "cargo": "cargo"}


def main(names):
    answers = {}
    for name in names:
        if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
            answers[name] = {"addresses": [], "seen": f"there is no {PROGRAMS[name]} in the sandbox"}
            continue
        try:
            answers[name] = {"addresses": TOOLS[name](), "seen": ""}
        except BaseException as error:
            answers[name] = {"addresses": [], "seen": f"{type(error).__name__}: {error}"[:300]}
    print("\n" + json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
