# shellcheck shell=bash
# Shared by the scripts: where the project is, and how a step is shown. Sourced, never run. Written for bash 3.2 (macOS).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck disable=SC2034 # used by the scripts
python=.venv/bin/python
# shellcheck disable=SC2034
missing=3 # exit code: something that is needed is not there (tatin_jobs/errors.py)

say() { printf '%s\n' "$*"; }

# fail CODE TEXT...: each text is a line on stderr.
fail() {
    local code=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$code"
}

# step TEXT COMMAND...: one line when it is done, with its time when that was over a second; the output only on failure.
step() {
    local text=$1 started=$SECONDS log took
    shift
    log=$(mktemp)
    if [ -t 1 ]; then printf '◐ %s' "$text"; fi
    if ! "$@" >"$log" 2>&1; then
        if [ -t 1 ]; then printf '\r'; fi
        say "✗ $text"
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
    took=$((SECONDS - started))
    if [ -t 1 ]; then printf '\r'; fi
    if [ "$took" -gt 1 ]; then say "✓ $text (${took}s)"; else say "✓ $text"; fi
}
