# In the guest, after the agent is dead: everything that is kept, as tars one behind the other on stdout.
# $1 home, $2 folder of the snapshot, $3 the repository as ./path below home, $4 pattern (ERE) of the artifacts, empty:
# all; then lists, one path a line: $5 folders to search for artifacts, $6 the same inside the repository (both as
# ./path below home), $7 transcripts (absolute).
# Names tell what is what: `changes.patch` and `commits.bundle`, `./...` an artifact, else a transcript without its `/`.
set -uf
LC_ALL=C COPYFILE_DISABLE=1
export LC_ALL COPYFILE_DISABLE
home=$1 snapshot=$2 repo=$3 pattern=$4 roots=$5 repo_roots=$6 transcripts=$7
IFS='
'
list=$snapshot.list status=0
pack() { # the files of $list, below $1
    if [ -s "$list" ]; then tar -C "$1" --null --no-recursion -cf - -T "$list" || status=1; fi
}
: >"$list" || exit 74
if [ -f "$snapshot/changes.patch" ]; then
    bundle=
    if [ -f "$snapshot/commits.bundle" ]; then bundle=commits.bundle; fi
    tar -C "$snapshot" -cf - changes.patch $bundle || status=1
fi
if [ -n "$transcripts" ]; then
    find $transcripts ! -type d -print0 2>/dev/null >"$list"
    pack /
fi
cd "$home" || exit 1
: >"$list"
if [ -n "$roots" ]; then
    find $roots -path "$repo" -prune -o -name .git -prune -o ! -type d -print0 2>/dev/null >"$list"
fi
if [ -n "$repo_roots" ]; then
    find $repo_roots -name .git -prune -o ! -type d -print0 2>/dev/null >>"$list"
fi
if [ -n "$pattern" ] && [ -s "$list" ]; then
    tr '\n\0' '\0\n' <"$list" | grep -a -E -e "$pattern" | tr '\n\0' '\0\n' >"$list.wanted"
    mv "$list.wanted" "$list"
fi
pack .
exit $status
