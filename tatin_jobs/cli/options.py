"""Arguments and options that several commands have, each with one name and one meaning."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with a schema_version; errors too, on stderr.")]
JobFilesArgument = Annotated[list[str], typer.Argument(metavar="JOB", help="Job files; - is stdin.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of every job, as resources.cpus=2. May be repeated."),
]
JobOrBatch = Annotated[str, typer.Argument(metavar="ID", help="A job or a batch; any unique beginning of its id.")]
OneJob = Annotated[str, typer.Argument(metavar="ID", help="A job; any unique beginning of its id.")]
JobsOrBatches = Annotated[
    list[str], typer.Argument(metavar="ID", help="Jobs or batches; any unique beginning of an id.")
]
JobsOrBatchesIfAny = Annotated[
    list[str], typer.Argument(metavar="ID", help="Jobs or batches; any unique beginning of an id.")
]
Labels = Annotated[
    list[str],
    typer.Option("--label", metavar="KEY=VALUE", help="All waiting jobs with this label. Repeated: with all of them."),
]
WholeQueue = Annotated[bool, typer.Option("--queue", help="The whole queue.")]
