# shellcheck shell=sh disable=SC2086
# In the guest, after the agent is dead: everything that is kept, as tars one behind the other on stdout.
# $1 home, $2 folder of the snapshot, $3 the repository as ./path below home, $4 pattern (ERE) of the artifacts, empty:
# all, $5 most bytes of a file; then lists, one path a line: $6 folders to search for artifacts, $7 the same inside the
# repository (both as ./path below home), $8 transcripts (absolute, without the first `/`).
# Names tell what is what: `changes.patch`, `commits.bundle`, `left_out` (names of files over $5), `./...` an artifact,
# else a transcript.
# The lists are split at their newlines (IFS), and nothing in them is expanded (-f).
set -u
PATH=/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin LC_ALL=C COPYFILE_DISABLE=1
export PATH LC_ALL COPYFILE_DISABLE
home=$1 snapshot=$2 repo=$3 pattern=$4 most=$5 roots=$6 repo_roots=$7 transcripts=$8
work=$snapshot.out status=0
list=$work/list long=$work/left_out
export long
# Of what is below $@: the files and whatever else is no folder. What its owner may not read is made readable, and files
# that are too long go to the list of those.
names() {
    # shellcheck disable=SC2016 # the inner shell expands it
    find "$@" -type d \( -perm -500 -o -exec chmod u+rx {} \; \) \
        -o -type f -size "+${most}c" -exec sh -c 'printf "%s\0" "$@" >>"$long"' sh {} + \
        -o ! -type d \( -perm -400 -o -exec chmod u+r {} \; -o ! -type d \) -print0 2>/dev/null
}
wanted() { # only those names of the list $1 that the pattern wants; as lines, for grep, and back
    if [ -n "$pattern" ] && [ -s "$1" ]; then
        tr '\n\0' '\0\n' <"$1" | grep -a -E -e "$pattern" | tr '\n\0' '\0\n' >"$1.wanted"
        mv "$1.wanted" "$1"
    fi
}
pack() { # the files of $list, below the folder at hand
    if [ -s "$list" ]; then tar --null --no-recursion -cf - -T "$list" || status=1; fi
}
set --
if [ -f "$snapshot/changes.patch" ]; then set -- changes.patch; fi
if [ $# -gt 0 ] && [ -f "$snapshot/commits.bundle" ]; then set -- "$@" commits.bundle; fi
if ! beside "$home" "$repo" "$roots" "$repo_roots$transcripts"; then
    if [ $# -gt 0 ]; then exec tar -C "$snapshot" -cf - "$@"; fi
    exit 0
fi
if [ $# -gt 0 ]; then tar -C "$snapshot" -cf - "$@" || status=1; fi
IFS='
'
set -f
if [ -e "$work" ] || [ -L "$work" ]; then
    [ -L "$work" ] || chmod -R u+rwx "$work" 2>/dev/null # which follows a link that is named to it
    rm -rf "$work"
fi
mkdir "$work" || exit 74
if [ -n "$transcripts" ] && cd /; then
    names $transcripts >"$list"
    pack
fi
cd "$home" || exit 1
: >"$list"
if [ -n "$roots" ]; then
    names $roots -path "$repo" -prune -o -name .git -prune -o >"$list"
fi
if [ -n "$repo_roots" ]; then
    names $repo_roots -name .git -prune -o >>"$list"
fi
wanted "$list"
wanted "$long"
pack
if [ -s "$long" ]; then tar -C "$work" -cf - left_out || status=1; fi
exit $status
