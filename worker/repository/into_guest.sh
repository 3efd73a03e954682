# shellcheck shell=sh
# In the guest, with what git needs in its environment: stdin is the tar of a bare repository. $1 where the clone goes, $2
# its config, $3 where a copy of the index goes, for the patch at the end; then the command that checks out.
set -eu
umask 022
repo=$1 config=$2 base_index=$3
shift 3
if ! { [ -d "$repo/.git/info" ] && [ -d "$repo/.git/hooks" ] && [ -d "${base_index%/*}" ]; }; then
    mkdir -p "$repo/.git/info" "$repo/.git/hooks" "${base_index%/*}"
fi
tar -xof - -C "$repo/.git"
printf '%s' "$config" >"$repo/.git/config"
cd "$repo"
"$@"
# At once: git trusts what an index says of files that are older than it, to the second, and none may change in between.
exec cat .git/index >"$base_index"
