# shellcheck shell=sh
# In the guest, after the agent is dead: what it left, against the commit that was cloned.
# $1 repository, $2 commit, $3 folder for the results, $4 index as it was after the clone, $5 most bytes of a patch,
# $6 a fresh copy of the cloned .git, for a repository whose own is lost; empty: there is none. $7 to $10, of beside.sh:
# what else is kept, when nothing will run in the guest before it is fetched; none: something may.
# Prints lines `key value`. Leaves changes.patch and, when the agent committed, commits.bundle in $3. But where nothing is
# kept but the patch, and will run in between, the last line is `whole` and the patch, figures in front, comes behind it.
#
# git runs with a repository folder of our own over the agent's objects: configuration, hooks, filters, text
# conversions, excludes and replaced objects that the agent planted in .git are never read, nor programs in its home.
set -u
umask 022
PATH=/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin LC_ALL=C
export PATH LC_ALL
repo=$1 base=$2 out=$3 base_index=$4 limit=$5 spare=$6
alone=
if [ $# -gt 6 ] && ! beside "$7" "$8" "$9" "${10}"; then alone=1; fi
tell() { # $1 `missing`: there can be no patch; `lost`: there can with a fresh copy of .git
    echo "$*"
    exit 0
}
# The folders that were put there before the agent ran, with nothing in them but what was; a name of the agent's that is
# written as the pattern that finds it says nothing to git.
untouched() {
    git=$out/git
    for folder in "$out" "$git" "$git/objects" "$git/refs"; do
        if [ ! -d "$folder" ] || [ -L "$folder" ]; then return 1; fi
        if ! { [ -r "$folder" ] && [ -w "$folder" ] && [ -x "$folder" ]; }; then return 1; fi
    done
    set -- "$out"/* "$out"/.[!.]* "$out"/..?* "$git"/* "$git"/.[!.]* "$git"/..?* "$git"/*/* "$git"/*/.[!.]* "$git"/*/..?*
    there="$git $out/.[!.]* $out/..?* $git/objects $git/refs $git/.[!.]* $git/..?*"
    [ "$*" = "$there $git/*/* $git/objects/.keep $git/refs/.keep $git/*/..?*" ]
}
if ! untouched; then
    if [ -e "$out" ] || [ -L "$out" ]; then
        [ -L "$out" ] || chmod -R u+rwx "$out" 2>/dev/null # which follows a link that is named to it
        rm -rf "$out"
    fi
    if ! mkdir "$out" "$out/git" "$out/git/objects" "$out/git/refs" 2>/dev/null; then
        tell missing "the guest's disk is full or not writable"
    fi
fi
if [ ! -d "$repo" ] || [ -L "$repo" ]; then tell missing "the repository's folder was removed or replaced"; fi
if ! { [ -r "$repo" ] && [ -w "$repo" ] && [ -x "$repo" ]; }; then chmod u+rwx "$repo"; fi
own=
if [ -d "$repo/.git" ] && [ ! -L "$repo/.git" ]; then
    own=$repo/.git
    if ! { [ -r "$own" ] && [ -x "$own" ] && [ -x "$own/objects" ]; }; then
        find "$own" -type d ! -perm -700 -exec chmod u+rwx {} \;
    fi
    if [ ! -d "$own/objects" ]; then own=; fi
fi
if [ -z "$own$spare" ]; then tell lost "the repository's .git was removed or replaced"; fi

printf 'ref: refs/heads/none\n' >"$out/git/HEAD"
format=0 extension=
[ ${#base} -eq 40 ] || { format=1 extension='[extensions]
	objectFormat = sha256
'; }
printf '[core]\n\trepositoryFormatVersion = %s\n\tbare = false\n\tfileMode = true\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n\tsafecrlf = false\n\tignoreCase = false\n\thooksPath = /dev/null\n\tfsmonitor = false\n%s' \
    $format "$extension" >"$out/git/config"
shallow=${spare:-$own}/shallow
if [ -f "$shallow" ]; then cp "$shallow" "$out/git/shallow"; fi
GIT_DIR=$out/git GIT_WORK_TREE=$repo GIT_INDEX_FILE=$base_index GIT_OBJECT_DIRECTORY=$out/git/objects
GIT_ALTERNATE_OBJECT_DIRECTORIES=${spare:-$own}/objects
GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1 GIT_TERMINAL_PROMPT=0
GIT_LITERAL_PATHSPECS=1
HOME=$out/git XDG_CONFIG_HOME=$out/git
export GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES HOME XDG_CONFIG_HOME
export GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_ATTR_NOSYSTEM GIT_NO_REPLACE_OBJECTS GIT_TERMINAL_PROMPT
export GIT_LITERAL_PATHSPECS
cd "$repo" || tell missing "the repository's folder cannot be entered"
swap() { tr '\n\0' '\0\n'; } # names as lines, for grep, and back

# With the index of the clone, files that did not change need not be read. It is used itself, not a copy: git trusts what
# an index says of a file only when the index is the younger one, and with a later time it would miss changes.
add() {
    [ -f "$base_index" ] && git -c advice.addEmbeddedRepo=true add -A 2>"$out/errors" && [ ! -s "$out/errors" ]
}

# What `git add` cannot take as it stands: what may not be read, and repositories inside this one, which would be a bare
# commit id in the patch. Their .git is put aside meanwhile.
add_the_hard_way() {
    aside=.tatin-$$-git
    GIT_INDEX_FILE=$out/index
    find . -type d ! -perm -700 -exec chmod u+rwx {} \;
    find . -type f ! -perm -400 -exec chmod u+r {} \;
    rm -f "$out/index" "$out/index.lock"
    git read-tree "$base" 2>"$out/errors" || return 1
    : >"$out/inner"
    for _ in 1 2 3 4 5 6 7 8; do # one inside the other
        git ls-files -z -o --exclude-standard | swap | grep -a '/$' >"$out/found" || break
        # shellcheck disable=SC2016 # the inner shell expands it
        swap <"$out/found" | xargs -0 sh -c 'aside=$0; for d; do mv "./$d.git" "./$d$aside"; done' "$aside"
        cat "$out/found" >>"$out/inner"
        mkdir -p "$out/git/info" && echo "$aside" >"$out/git/info/exclude"
    done
    git add -A --ignore-errors 2>"$out/errors"
    added=$?
    # shellcheck disable=SC2016
    swap <"$out/inner" | xargs -0 sh -c 'aside=$0; for d; do mv "./$d$aside" "./$d.git"; done' "$aside"
    grep '^error' "$out/errors" | head -n 5 | sed 's/^/left_out /' >"$out/left_out"
    [ $added -le 1 ]
}

# Whether there is something other than the branch that was cloned, or the reflog of a commit. Packed refs are sorted:
# those of the clone before its tags, of which there may be many, are read and no more.
moved() {
    if [ -e "$own/logs" ]; then return 0; fi
    for ref in "$own"/refs/*; do
        if [ -f "$ref" ]; then return 0; fi
    done
    for ref in "$own"/refs/*/*; do
        at=
        if [ -f "$ref" ]; then IFS= read -r at <"$ref"; fi
        if [ -e "$ref" ] && [ "$at" != "$base" ]; then return 0; fi
    done
    head=
    if [ -f "$own/HEAD" ]; then IFS= read -r head <"$own/HEAD"; fi
    case $head in ref:*) ;; *) return 0 ;; esac
    [ -f "$own/packed-refs" ] || return 1
    while read -r at ref; do
        case $ref in
        refs/tags/*) return 1 ;;
        refs/*) [ "$at" = "$base" ] || return 0 ;;
        esac
    done <"$own/packed-refs"
    return 1
}

# git for the patch, with a line of figures and an empty one before it.
set -- diff-index --cached -p --shortstat -M --binary --full-index --no-color --no-ext-diff --no-textconv \
    --src-prefix=a/ --dst-prefix=b/ "$base"

# The patch, with the line of figures before it taken off. dd tells how much it copied, so that no other program need.
# git is given a file as its stdout: of one that it opens itself it would not say that the disk was full.
compare() {
    git "$@" >"$out/compared" 2>"$out/errors" || return
    {
        IFS= read -r stat && read -r _
        dd of="$out/changes.patch" bs=65536 2>"$out/copied"
    } <"$out/compared" || { head -n 1 "$out/copied" >>"$out/errors" && false; } || return
    : >"$out/compared"
}

added=
if add; then
    added=1
    if [ -n "$alone" ] && [ -n "$own" ] && ! moved; then
        echo whole
        exec git "$@"
    fi
fi
if ! { [ -n "$added" ] && compare "$@"; } && ! { add_the_hard_way && compare "$@"; }; then
    rm -f "$out/changes.patch"
    tell lost "git cannot compare it with the cloned commit: $(tail -n 1 "$out/errors")"
fi
echo "stat $stat"
if [ -s "$out/left_out" ]; then cat "$out/left_out"; fi
size=
while read -r number unit _; do
    case $unit in byte | bytes) size=$number ;; esac
done <"$out/copied"
size=${size:-$(wc -c <"$out/changes.patch")}
echo "patch $size"
if [ "$size" -gt "$limit" ]; then
    git diff-index --cached --diff-filter=d "$base" | awk '{ id = $4; sub(/^[^\t]*\t/, ""); print id " " $0 }' |
        git cat-file --batch-check='%(objectsize) %(rest)' | sort -rn | head -n 5 | sed 's/^/largest /'
fi

[ -n "$own" ] && moved || exit 0
GIT_ALTERNATE_OBJECT_DIRECTORIES=$own/objects${spare:+:$spare/objects}
cp -R "$own/refs" "$out/git/" 2>"$out/errors"
find "$out/git/refs" ! -type d ! -type f -exec rm -f {} + # git would wait for a pipe, or for what a link leads to
for name in HEAD packed-refs; do
    if [ -f "$own/$name" ]; then cp "$own/$name" "$out/git/"; fi
done
if ! commits=$(git rev-list --count --all --not "$base" 2>"$out/errors"); then
    echo "unbundled the agent's commits cannot be read: $(tail -n 1 "$out/errors")"
    exit 0
fi
if [ "$commits" -gt 0 ]; then
    git bundle create -q "$out/commits.bundle" --all --not "$base" 2>"$out/errors" ||
        echo "unbundled the agent's commits cannot be packed: $(tail -n 1 "$out/errors")"
fi
echo "commits $commits"
