# In the guest, after the agent is dead: what it left, against the commit that was cloned.
# $1 repository, $2 commit, $3 folder for the results, $4 index as it was after the clone, $5 most bytes of a patch.
# Prints lines `key value`. Leaves changes.patch and, when the agent committed, commits.bundle in $3.
#
# git runs with a repository folder of our own over the agent's objects: configuration, hooks, filters, text
# conversions, excludes and replaced objects that the agent planted in .git are never read.
set -u
umask 022
LC_ALL=C
export LC_ALL
repo=$1 base=$2 out=$3 base_index=$4 limit=$5
missing() {
    echo "missing $*"
    exit 0
}
rm -rf "$out"
[ -d "$repo" ] && [ ! -L "$repo" ] || missing "the repository's folder was removed or replaced"
[ -d "$repo/.git/objects" ] && [ ! -L "$repo/.git" ] || missing "the repository's .git was removed or replaced"
mkdir -p "$out/git/objects" "$out/git/refs" || missing "the guest's disk is full or not writable"
printf 'ref: refs/heads/none\n' >"$out/git/HEAD"
format=0 extension=
[ ${#base} -eq 40 ] || { format=1 extension='[extensions]
	objectFormat = sha256
'; }
printf '[core]\n\trepositoryFormatVersion = %s\n\tbare = false\n\tfileMode = true\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n\tsafecrlf = false\n\tignoreCase = false\n\thooksPath = /dev/null\n\tfsmonitor = false\n%s' \
    $format "$extension" >"$out/git/config"
if [ -f "$repo/.git/shallow" ]; then cp "$repo/.git/shallow" "$out/git/shallow"; fi
GIT_DIR=$out/git GIT_WORK_TREE=$repo GIT_INDEX_FILE=$out/index GIT_OBJECT_DIRECTORY=$out/git/objects
GIT_ALTERNATE_OBJECT_DIRECTORIES=$repo/.git/objects
GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1 GIT_TERMINAL_PROMPT=0
GIT_LITERAL_PATHSPECS=1
HOME=$out/git XDG_CONFIG_HOME=$out/git
export GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES HOME XDG_CONFIG_HOME
export GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_ATTR_NOSYSTEM GIT_NO_REPLACE_OBJECTS GIT_TERMINAL_PROMPT
export GIT_LITERAL_PATHSPECS
cd "$repo" || missing "the repository's folder cannot be entered"

fresh_index() {
    rm -f "$out/index" "$out/index.lock"
    if [ -f "$base_index" ]; then cp "$base_index" "$out/index"; else git read-tree "$base" 2>>"$out/errors"; fi
}

# What `git add` cannot take as it stands: unreadable files, and repositories inside this one, which would be a bare
# commit id in the patch. Their .git is put aside meanwhile. `tr` swaps newline and NUL so that grep can sort out names.
add_the_hard_way() {
    find . -type d ! -perm -700 -exec chmod u+rwx {} \;
    find . -type f ! -perm -400 -exec chmod u+r {} \;
    mkdir -p "$out/git/info" && echo .tatin-git >"$out/git/info/exclude"
    fresh_index
    for round in 1 2 3 4 5 6 7 8; do
        git ls-files -z -o --exclude-standard | tr '\n\0' '\0\n' | grep -a '/$' >"$out/inner" || break
        tr '\n\0' '\0\n' <"$out/inner" | xargs -0 sh -c 'for d; do mv "./$d.git" "./$d.tatin-git"; done' sh
    done
    git add -A --ignore-errors 2>"$out/errors"
    added=$?
    find . -name .tatin-git -prune -exec sh -c 'for d; do mv "$d" "${d%/*}/.git"; done' sh {} +
    grep '^error' "$out/errors" | head -n 5 | sed 's/^/left_out /'
    [ $added -le 1 ]
} 2>>"$out/errors"

fresh_index || missing "the cloned commit is no longer in the repository"
if ! git -c advice.addEmbeddedRepo=true add -A 2>"$out/errors" || [ -s "$out/errors" ]; then
    add_the_hard_way || missing "git cannot read what is in the repository: $(tail -n 1 "$out/errors")"
fi
git diff-index --cached -p --shortstat -M --binary --full-index --no-color --no-ext-diff --no-textconv \
    --src-prefix=a/ --dst-prefix=b/ "$base" >"$out/diff" 2>>"$out/errors" ||
    missing "git cannot compare with the cloned commit: $(tail -n 1 "$out/errors")"
{
    IFS= read -r stat && IFS= read -r blank
    cat >"$out/changes.patch"
} <"$out/diff"
rm -f "$out/diff"
echo "stat ${stat-}"
size=$(wc -c <"$out/changes.patch")
echo "patch $size"
if [ "$size" -gt "$limit" ]; then
    git diff-index --cached --diff-filter=d "$base" | awk '{ id = $4; sub(/^[^\t]*\t/, ""); print id " " $0 }' |
        git cat-file --batch-check='%(objectsize) %(rest)' | sort -rn | head -n 5 | sed 's/^/largest /'
fi

# Commits: only where something other than the one packed branch is there, or the reflog of a commit.
moved=
for ref in "$repo"/.git/logs "$repo"/.git/refs/*/*; do [ -e "$ref" ] && moved=1; done
IFS= read -r head <"$repo/.git/HEAD" || head=
case $head in ref:*) ;; *) moved=1 ;; esac
[ -n "$moved" ] || exit 0
cp -R "$repo/.git/refs" "$repo/.git/HEAD" "$out/git/" 2>>"$out/errors"
if [ -f "$repo/.git/packed-refs" ]; then cp "$repo/.git/packed-refs" "$out/git/"; fi
commits=$(git rev-list --count --all --not "$base" 2>>"$out/errors") || commits=0
if [ "$commits" -gt 0 ]; then
    git bundle create -q "$out/commits.bundle" --all --not "$base" 2>>"$out/errors" ||
        echo "unbundled $(tail -n 1 "$out/errors")"
fi
echo "commits $commits"
