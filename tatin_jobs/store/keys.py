"""Every key of the store, under one prefix (``tatin:``). Ids and names match the patterns of ``tatin_jobs.names``.

    meta                 hash    store_id (drawn once), schema (of the keys; a newer one is refused)
    seq  token           strings counters: order in line, fencing numbers
    job:<id>             hash    the record (``records.py``), its class and score, and what the scripts keep beside it:
                                 ended, returned (the token that did it), asked, logged (the last request's nonce),
                                 queued_at, reserved_by, reserved_at (of the host kept free for it), gates (the end of
                                 its class), due (ms before which it does not run), overdue, probe (the token that
                                 probes), quota_told, route_told, route_answer, route_fails (of its last attempts)
    events:<id>          list    one JSON event a move, the newest 200
    log:<id>             stream  a(ttempt) s(tream) d(ata), the newest 1,000 pieces of 4 KiB; gone a day
                                 after the job's end
    ids                  zset    job and batch ids, all scored 0, for prefixes by ZRANGEBYLEX
    all                  zset    job id -> created, ms
    batches              zset    batch id -> created, ms
    batch:<id>           hash    body (JSON), digest, commit:<repository>, notified:<event>, told:<event>
    classes              hash    need class -> need JSON; a class whose line is empty may be missing. A class is a
                                 need and the gates of its jobs: ``1;c2;m4096w;d20000w;os:linux|a...|r...``
    line:<class>         zset    job id -> place: -priority * 2^40 + number
    held                 zset    job id -> due, ms; +inf: held by a person or for other jobs
    needs:<id>           zset    the jobs that this one waits for, all scored 0
    needed:<id>          zset    the jobs that wait for this one, all scored 0
    settle               zset    over, and jobs wait for it: id -> ms
    deadlines            zset    job id -> deadline, ms; of jobs that are not over
    gates                zset    ids of gates that are closed or have failures, all scored 0
    gate:<id>            hash    kind, name, until (ms, ``inf``: until a person opens it, empty: open), message,
                                 failures (of a route, in a row)
    leases:<worker>      hash    job id -> what its sandbox takes, JSON
    beats                hash    job id -> "token|beat|lease seconds"
    nonce:<worker>       hash    the last claim that gave a job: nonce, id, token
    finished             zset    job id -> finished, ms
    changes              stream  id, move of every move, the newest 10,000
    wake                 stream  one entry: something became claimable
    workers  seen        hashes  worker -> WorkerInfo JSON; worker -> ms
    owners               hash    worker -> id of the home that has this name
    draining             set     workers told to claim nothing

A job is in exactly one place (I1): a line, ``held``, a worker's leases (with ``beats``), or ``finished``.
The need class begins with the record's version, so a worker never meets a record that it does not know (F12).
"""

from __future__ import annotations

from tatin_jobs.models import RECORD_VERSION, Need

SCHEMA = 1
PRIORITY_STEP = 2**40
"""One step of priority outweighs any number of jobs in line; scores stay exact (priority within +-1000 uses 2^50)."""


def need_class(need: Need) -> str:
    """A need's part of the name of a line: ``1;c2;m4096w;d20000w;os:linux``."""

    def part(letter: str, value: int, wish: bool) -> str:
        return f"{letter}{value}{'w' if wish else ''}"

    return ";".join(
        [
            str(RECORD_VERSION),
            part("c", need.cpus, need.cpus_wish),
            part("m", need.memory_mib, need.memory_wish),
            part("d", need.disk_mib, need.disk_wish),
            *need.tags,
        ]
    )
