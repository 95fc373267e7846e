#!/usr/bin/env bash
# Makes the deb and the rpm of a binary, with its SBOM and the checksums. The same input gives the same
# packages, bit by bit.
#
#     deploy/packages/build.sh BINARY TOOLS FOLDER [VERSION]
#
# TOOLS is the folder of nfpm and cargo-cyclonedx.
set -euo pipefail
cd "$(dirname "$0")/../.."
usage='usage: build.sh BINARY TOOLS FOLDER [VERSION]'
binary=$(realpath "${1:?$usage}")
tools=$(realpath "${2:?$usage}")
out=$(realpath --canonicalize-missing "${3:?$usage}")
cargo_version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
version=${4:-$cargo_version}
# Of all times in the packages, so that the same commit gives the same packages.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

# The oldest glibc that packages promise: Debian 10, RHEL 8, Ubuntu 18.10.
oldest=2.28
newest=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort --version-sort | tail -n 1)
if [ "$(printf '%s\n' "$oldest" "$newest" | sort --version-sort | tail -n 1)" != "$oldest" ]; then
    echo "$binary needs glibc $newest; packages are for $oldest and newer" >&2
    exit 1
fi

rm -rf "$out"
mkdir -p "$out/parts/man"
install -m 755 "$binary" "$out/parts/boldgate"
commands=$("$binary" man | sed -n 's/^boldgate\\-\([a-z]*\)(1)$/\1/p')
"$binary" man | gzip -9n >"$out/parts/man/boldgate.1.gz"
for command in $commands; do
    "$binary" man "$command" | gzip -9n >"$out/parts/man/boldgate-$command.1.gz"
done
"$binary" completions bash >"$out/parts/boldgate.bash"
"$binary" completions zsh >"$out/parts/_boldgate"
"$binary" completions fish >"$out/parts/boldgate.fish"

# As in the repository, so that the links between documents work.
doc=$out/parts/doc
mkdir "$doc"
install -m 644 LICENSE "$doc/copyright"
cp -r --parents README.md CHANGELOG.md SECURITY.md ARCHITECTURE.md CONTRIBUTING.md config docs \
    deploy/prometheus/boldgate.rules.yaml deploy/grafana/boldgate-dashboard.json \
    deploy/split deploy/packages/gateway.yaml "$doc"

# The crates of the binary. The tool writes beside Cargo.toml, and names the folder.
"$tools/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 \
    --override-filename boldgate.cdx
sed "s|file://$PWD|file:///boldgate|g" boldgate.cdx.json >"$out/boldgate-$version.cdx.json"
rm boldgate.cdx.json
cp "$out/boldgate-$version.cdx.json" "$doc/boldgate.cdx.json"

arch=$(case $(uname -m) in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) uname -m ;; esac)
find "$out/parts" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
declare -A zsh=([deb]=/usr/share/zsh/vendor-completions [rpm]=/usr/share/zsh/site-functions)
for format in deb rpm; do
    sed -e "s|@ARCH@|$arch|g; s|@VERSION@|$version|g; s|@ZSH@|${zsh[$format]}|g" \
        -e "s|@PARTS@|$out/parts|g" \
        deploy/packages/nfpm.yaml >"$out/parts/nfpm.yaml"
    "$tools/nfpm" package --config "$out/parts/nfpm.yaml" --packager "$format" --target "$out" >/dev/null
done
rm -r "$out/parts"
(cd "$out" && sha256sum -- *.deb *.rpm *.cdx.json | tee SHA256SUMS)
