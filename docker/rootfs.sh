#!/usr/bin/env bash
# Collects a root file system that holds headhunt and what it needs at run time, and nothing else: no
# shell, no package manager. For the images; Debian and Ubuntu.
#
#   docker/rootfs.sh target/release/headhunt /rootfs [LIBRARY…]
#
# Libraries that the binary looks for by itself (CUDA's) go to /usr/lib/headhunt, with what they load.
# Uid 65532 may write nothing in it; give it a /tmp (uploads that are spooled, GStreamer's registry).
set -euo pipefail

binary=$1
root=$2
shift 2

# The plugins that hold the elements of src/video's allow-lists, and of `headhunt camera` and `demo`.
plugins=(
  coreelements app videoconvertscale videorate typefindfunctions
  isomp4 matroska mpegtsdemux avi rtp rtpmanager tcp udp
  videoparsersbad libav vpx jpeg x264
)
# In distributions that have them; without them AV1 is refused by name.
optional=(aom dav1d rsdav1d)

multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
source=/usr/lib/$multiarch/gstreamer-1.0

copy() { # FILE: to the same place below the root, with the links on the way as files
  local file=$1
  [ -e "$root$file" ] && return
  mkdir -p "$root$(dirname "$file")"
  cp --dereference --preserve=mode,timestamps "$file" "$root$file"
}

libraries_of() { # FILE: every library that it loads
  local library
  while read -r library; do
    # /lib is /usr/lib on both distributions: one copy is enough, /lib becomes a link.
    copy "$(readlink -f "$(dirname "$library")")/$(basename "$library")"
  done < <(ldd "$1" | grep -oE '/[^ ]+\.so[^ ]*')
}

mkdir -p "$root"/{etc,tmp,data,proc,dev} "$root/usr/bin" "$root/usr/lib"
ln -sfn usr/lib "$root/lib"
if [ -d /usr/lib64 ]; then
  mkdir -p "$root/usr/lib64"
  ln -sfn usr/lib64 "$root/lib64"
fi

missing=$(ldd "$binary" | grep 'not found' || true)
[ -z "$missing" ] || {
  echo "rootfs: $binary: $missing" >&2
  exit 1
}
install -m 755 "$binary" "$root/usr/bin/headhunt"
libraries_of "$binary"
for library in "$@"; do
  install -D -m 644 "$(readlink -f "$library")" "$root/usr/lib/headhunt/$(basename "$library")"
  libraries_of "$library"
done

for plugin in "${plugins[@]}"; do
  file=$source/libgst$plugin.so
  [ -e "$file" ] || { echo "rootfs: no $file: run make setup first" >&2; exit 1; }
  copy "$file"
  libraries_of "$file"
done
for plugin in "${optional[@]}"; do
  [ -e "$source/libgst$plugin.so" ] || continue
  copy "$source/libgst$plugin.so"
  libraries_of "$source/libgst$plugin.so"
done

# Names are resolved by glibc, which loads these by itself.
for library in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
  [ ! -e "/usr/lib/$multiarch/$library" ] || copy "/usr/lib/$multiarch/$library"
done
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'headhunt:x:65532:65532:headhunt:/data:/nonexistent' >"$root/etc/passwd"
echo 'headhunt:x:65532:' >"$root/etc/group"

# Authorities for rtsps, https and the hub.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  copy /etc/ssl/certs/ca-certificates.crt
fi

# Licences of what was collected.
dpkg-query --search "$source"/libgst{coreelements,isomp4,videoparsersbad,libav,x264}.so 2>/dev/null |
  cut -d: -f1 | sort -u | while read -r package; do
  [ ! -e "/usr/share/doc/$package/copyright" ] || copy "/usr/share/doc/$package/copyright"
done

chmod 1777 "$root/tmp"
chown 65532:65532 "$root/data" 2>/dev/null || true
echo "rootfs: $(du -sh "$root" | cut -f1) in $root, $(find "$root" -type f | wc -l) files"
