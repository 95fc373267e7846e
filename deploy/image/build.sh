#!/usr/bin/env bash
# Builds the image without pulling one: the last stage of deploy/Dockerfile, on a base that is made of
# Debian's packages of glibc, libgcc and the CA certificates. Writes an OCI archive and a docker
# archive; only the second can hold a HEALTHCHECK. The same input gives the same image, bit by bit; the
# archives differ in the time at which they were packed.
#
#     deploy/image/build.sh BINARY FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:?usage: build.sh BINARY FOLDER}")
out=$(realpath --canonicalize-missing "${2:?usage: build.sh BINARY FOLDER}")

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# Of all times in the image, so that the same commit gives the same archives.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

rm -rf "$out"
mkdir -p "$out/packages" "$out/unpacked" "$out/root" "$out/storage"

# APT checks the signatures.
(cd "$out/packages" && apt-get -o APT::Sandbox::User=root download -qq libc6 libgcc-s1 ca-certificates)
for package in "$out"/packages/*.deb; do dpkg-deb --extract "$package" "$out/unpacked"; done

root=$out/root
multiarch=$(dpkg-architecture -q DEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
mkdir -p "$root"/{etc/ssl/certs,tmp,usr/share/doc,usr/bin,home/nonroot} "$root/lib/$multiarch"
chmod 1777 "$root/tmp"
# The loader stands where the ABI wants it: /lib64/ld-linux-x86-64.so.2, /lib/ld-linux-aarch64.so.1.
for path in "$out"/unpacked/lib64/ld-linux* "$out"/unpacked/lib/ld-linux*; do
    if [ -e "$path" ]; then
        install -D -m 755 "$(realpath "$path")" "$root/${path#"$out"/unpacked/}"
    fi
done
for library in libc libm libgcc_s libresolv libnss_dns libnss_files libdl libpthread librt; do
    install -m 755 "$out/unpacked/lib/$multiarch/$library".so.? "$root/lib/$multiarch"
done
# As update-ca-certificates writes it.
find "$out/unpacked/usr/share/ca-certificates" -name '*.crt' -print0 | sort -z |
    xargs -0 awk 1 >"$root/etc/ssl/certs/ca-certificates.crt"
for package in libc6 libgcc-s1 ca-certificates; do
    # One of them is a link to the folder of another package of the same source.
    if [ -e "$out/unpacked/usr/share/doc/$package/copyright" ]; then
        install -D -m 644 "$out/unpacked/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    fi
done
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

# The instructions of the last stage are those of the Dockerfile; only where its two inputs come from
# differs.
install -m 755 "$binary" "$out/boldgate"
sed -n '/^FROM gcr\.io/,$p' deploy/Dockerfile | sed \
    -e 's|^FROM gcr\.io/.*|FROM scratch\nCOPY root/ /|' \
    -e 's|^COPY --from=build /out/boldgate |COPY boldgate |' >"$out/Dockerfile"

export STORAGE_DRIVER=vfs
storage=(--root "$out/storage/root" --runroot "$out/storage/run")
for format in oci docker; do
    buildah "${storage[@]}" build --quiet --isolation chroot --format "$format" --timestamp "$epoch" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" \
        --tag "boldgate:$version" --file "$out/Dockerfile" "$out" >/dev/null
    buildah "${storage[@]}" push --quiet "boldgate:$version" \
        "$format-archive:$out/boldgate-$version-$format.tar:boldgate:$version"
done
rm -rf "$out/storage" "$out/packages" "$out/unpacked"
(cd "$out" && sha256sum ./*.tar | tee SHA256SUMS)
