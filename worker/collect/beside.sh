# shellcheck shell=sh
# In the guest, in front of snapshot.sh and of pull.sh: whether anything is kept beside the repository's patch.
# $1 home, $2 the repository as ./path below it, $3 folders to search for artifacts (as ./path below it), one a line;
# $4 whatever is kept from elsewhere. Changes the folder at hand.
beside() {
    if [ -n "$4" ] || ! cd "$1"; then return 0; fi
    repository=$2 folders=$3 fields=$IFS
    set --
    IFS='
'
    set -f
    for folder in $folders; do
        if [ -d "$folder" ] && [ ! -L "$folder" ] && [ -r "$folder" ] && [ -x "$folder" ]; then
            set +f
            set -- "$@" "$folder"/* "$folder"/.[!.]* "$folder"/..?*
            set -f
        else
            set -- "$@" "$folder"
        fi
    done
    set +f
    IFS=$fields
    for name; do
        if [ "$name" != "$repository" ] && { [ -e "$name" ] || [ -L "$name" ]; }; then return 0; fi
    done
    return 1
}
