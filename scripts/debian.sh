# shellcheck shell=bash
# Debian packages of another release or architecture, downloaded from the mirror that apt already
# uses, verified by apt's own keys, and unpacked under .cache/, never installed. For `source`, in
# the repository's root.
cache=$PWD/.cache

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

# The mirror that apt already uses.
debian_mirror() {
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/\?$' ||
        { echo "apt knows no Debian mirror: run apt-get update, or fix its sources" >&2; return 1; }
}

# debian_lists SUITE [ARCHITECTURE]: has apt look at that release; sets `apt` to its folder and
# `options` to what apt-get and apt-cache need for it.
debian_lists() {
    local mirror
    mirror=$(debian_mirror)
    apt=$cache/apt-$1${2:+-$2}
    mkdir -p "$apt/lists/partial" "$apt/empty" "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$apt/sources.list"
    options=(-q -q -o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/empty"
        -o "Dir::State::Lists=$apt/lists" -o "APT::Default-Release=$1" -o APT::Sandbox::User=root
        # What is installed here, from wherever, is no candidate.
        -o Dir::State::status=/dev/null)
    [ -z "${2:-}" ] || options+=(-o "APT::Architecture=$2" -o "APT::Architectures=$2")
    apt-get "${options[@]}" update
}

# is_complete FOLDER PACKAGES: whether just those are unpacked there.
is_complete() { [ "$(cat "$1/.complete" 2>/dev/null)" = "$2" ]; }

# unpack_root [-a ARCHITECTURE] SUITE FOLDER PACKAGE...: packages and all that they need, into
# .cache/FOLDER, once: a root in which their programs run.
unpack_root() {
    local architecture="" suite root archives package
    if [ "$1" = -a ]; then
        architecture=$2
        shift 2
    fi
    suite=$1 root=$cache/$2
    shift 2
    is_complete "$root" "$*" && return
    say "unpacking a Debian $suite with $*"
    debian_lists "$suite" "$architecture"
    archives=$apt/archives
    rm -rf "$archives" "${root:?}"
    mkdir -p "$archives/partial" "$root"/{proc,sys,dev,tmp,etc,run,usr}
    chmod 755 "$root"
    chmod 1777 "$root/tmp"
    apt-get "${options[@]}" -o "Dir::Cache::archives=$archives" -y \
        --no-install-recommends --download-only install "$@" >/dev/null
    for package in "$archives"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink
    done
    # Older releases have these as folders, newer ones as links that a script of theirs makes.
    for package in bin sbin lib lib64; do
        [ -e "$root/$package" ] || ln -s "usr/$package" "$root/$package"
    done
    [ -e "$root/bin/sh" ] || ln -s bash "$root/bin/sh"
    [ -e "$root/etc/passwd" ] || echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    [ -e "$root/etc/group" ] || echo 'root:x:0:' >"$root/etc/group"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    echo debian >"$root/etc/hostname"
    : >"$root/etc/resolv.conf"
    echo "$*" >"$root/.complete"
}

# unpack [-a ARCHITECTURE] SUITE FOLDER PACKAGE...: into .cache/FOLDER, once.
unpack() {
    local architecture="" suite folder package
    if [ "$1" = -a ]; then
        architecture=$2
        shift 2
    fi
    suite=$1 folder=$2
    shift 2
    is_complete "$cache/$folder" "$*" && return
    say "unpacking $* from Debian $suite"
    debian_lists "$suite" "$architecture"
    (cd "$apt/debs" && apt-get "${options[@]}" download "$@")
    rm -rf "${cache:?}/$folder"
    mkdir -p "$cache/$folder"
    for package in "$@"; do
        dpkg-deb -x "$(find "$apt/debs" -name "${package}_*.deb" | sort | tail -1)" "$cache/$folder"
    done
    echo "$*" >"$cache/$folder/.complete"
}

# unpack_source SUITE FOLDER PACKAGE: Debian's source of a package, patched as Debian builds it, into .cache/FOLDER, once.
unpack_source() {
    local root=$cache/$2 package=$3
    is_complete "$root" "$package" && return
    say "unpacking the source of $package from Debian $1"
    debian_lists "$1"
    # Lists of their own: an update forgets those that sources.list does not name.
    mkdir -p "$apt/source-lists/partial"
    sed 's/^deb /deb-src /' "$apt/sources.list" >"$apt/source.list"
    options+=(-o "Dir::Etc::SourceList=$apt/source.list" -o "Dir::State::Lists=$apt/source-lists")
    apt-get "${options[@]}" update
    rm -rf "$root" "$root.unpacked"
    mkdir -p "$root.unpacked"
    (cd "$root.unpacked" && apt-get "${options[@]}" --only-source source "$package" >/dev/null)
    mv "$root.unpacked/$package"-*/ "$root"
    rm -rf "$root.unpacked"
    echo "$package" >"$root/.complete"
}
