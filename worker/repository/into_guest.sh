# shellcheck shell=sh
# In the guest, with what git needs in its environment: stdin is the tar of a bare repository. $1 where the clone goes, $2
# its config, $3 where a copy of the index goes, for the patch at the end.
set -eu
umask 022
repo=$1 base_index=$3
if ! { [ -d "$repo/.git/info" ] && [ -d "$repo/.git/hooks" ] && [ -d "${base_index%/*}" ]; }; then
    mkdir -p "$repo/.git/info" "$repo/.git/hooks" "${base_index%/*}"
fi
tar -xof - -C "$repo/.git"
printf '%s' "$2" >"$repo/.git/config"
cd "$repo"
git -c core.hooksPath=/dev/null read-tree --reset -u HEAD
# At once: git trusts what an index says of files that are older than it, to the second, and none may change in between.
exec cat .git/index >"$base_index"
