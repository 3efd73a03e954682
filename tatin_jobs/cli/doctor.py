"""``tatin doctor``: every setting and where it comes from, and everything a night needs, each with its fix."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import cell, console, plain_table, print_json, say
from tatin_jobs.errors import EXIT_MISSING, EXIT_OK, TatinError
from tatin_jobs.home import Home
from tatin_jobs.needs import at_once
from tatin_jobs.settings import GatewaySettings, Settings, load_settings
from tatin_jobs.store import Store, open_store
from tatin_jobs.store.promises import store_promises
from tatin_jobs.submitting import default_need

MISPLACED_SHOWN = 5

Row = dict[str, Any]
"""One check: ``name``, ``ok``, what was ``seen``, and the ``fix``."""


def command(
    repair: Annotated[
        bool, typer.Option("--repair", help="First put every job that has no place, or two, where its record says.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check what jobs need here, and show every setting.

    Each setting with its source. Ends with 3 when something is missing.
    """
    from worker.doctor import checks

    settings = load_settings(os.environ)
    if repair:
        with open_store(settings, Home(settings.home)) as store:
            for job_id in store.repair():
                say(f"{job_id}: put in its place")
    values = settings_rows(settings)
    host = [_row(found.name, found.ok, found.seen, found.fix) for found in checks(settings)]
    rows = [*host, *_store_rows(settings), *_capacity(settings)]
    if as_json:
        print_json({"settings": values, "findings": rows})
    else:
        _print(values, rows)
    return EXIT_OK if all(row["ok"] for row in rows) else EXIT_MISSING


def settings_rows(settings: Settings) -> list[dict[str, str]]:
    """Name, value and source of each setting; an address without its password."""
    from tatin_jobs.store.scripts import shown_url

    rows = []
    for name in Settings.model_fields:
        if name in ("sources", "models", "secrets", "gateway"):
            continue
        value = getattr(settings, name)
        text = shown_url(value) if name == "redis_url" and value else _text(value)
        rows.append({"name": name, "value": text, "source": settings.source(name)})
    for name in GatewaySettings.model_fields:
        text = _text(getattr(settings.gateway, name))
        rows.append({"name": f"gateway.{name}", "value": text, "source": settings.source("gateway")})
    for name, provider in settings.models.items():
        key = provider.key_source or "none"
        text = f"{shown_url(provider.base_url)} ({provider.api}, key: {key})"
        rows.append({"name": f"models.{name}", "value": text, "source": settings.source("models")})
    for name, secret in settings.secrets.items():
        rows.append({"name": f"secrets.{name}", "value": str(secret.source), "source": settings.source("secrets")})
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return " ".join(str(item) for item in value) or "-" if isinstance(value, tuple) else str(value)


def _store_rows(settings: Settings) -> list[Row]:
    try:
        with open_store(settings, Home(settings.home)) as store:
            return [*_server(store), _placed(store)]
    except TatinError as error:
        return [_row("store", False, f"{error.what} {error.seen or ''}".strip(), error.try_ or "")]


def _server(store: Store) -> list[Row]:
    promises = [_row(one.name, one.kept, one.seen, one.fix) for one in store_promises(store)]
    return [_row("store", True, store.server_settings()["version"]), *promises]


def _placed(store: Store) -> Row:
    wrong = store.misplaced()
    if not wrong:
        return _row("every job has its place", True, "yes")
    shown = ", ".join(wrong[:MISPLACED_SHOWN]) + (" ..." if len(wrong) > MISPLACED_SHOWN else "")
    fix = "tatin doctor --repair"
    return _row("every job has its place", False, f"{len(wrong)} have none or two: {shown}", fix)


def _capacity(settings: Settings) -> list[Row]:
    from worker.capacity import offer_of
    from worker.sandboxes import choose_provider

    home = Home(settings.home)
    try:
        kind = choose_provider(settings, home, home.id()).kind
    except (TatinError, OSError):
        return []  # the sandbox's own findings say why
    offer = offer_of(settings, kind)
    count = at_once(default_need(settings), offer)
    seen = (
        f"{count} of the default job run at once here ({offer.cpus} CPUs, {offer.memory_mib} MiB, {offer.slots} slots)"
    )
    fix = "" if count else "free memory or disk, or offer more with --cpus, --memory and --slots"
    return [_row("capacity", count > 0, seen, fix)]


def _row(name: str, ok: bool, seen: str, fix: str = "") -> Row:
    return {"name": name, "ok": ok, "seen": seen, "fix": fix}


def _print(values: list[dict[str, str]], rows: list[Row]) -> None:
    screen = console()
    table = plain_table("SETTING", "VALUE", "FROM")
    for value in values:
        table.add_row(cell(value["name"]), cell(value["value"]), cell(value["source"]))
    screen.print(table)
    screen.print()
    found = plain_table("", "CHECK", "SEEN")
    for row in rows:
        mark, colour = ("✓", "green") if row["ok"] else ("✗", "red")
        found.add_row(cell(mark, colour), cell(row["name"]), cell(row["seen"]))
    screen.print(found)
    for row in rows:
        if not row["ok"] and row["fix"]:
            screen.print(cell(f"✗ {row['name']}: {row['fix']}", "red", limit=1000), soft_wrap=True)
