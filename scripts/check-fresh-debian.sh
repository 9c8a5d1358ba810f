#!/bin/sh
# Proves that a bare clone needs nothing but Debian's nodejs and npm: builds a minimal Debian root with
# only these two, clones the last commit into it, and runs scripts/bootstrap.sh there.
#   sudo sh scripts/check-fresh-debian.sh [SUITE=trixie] [PHASE=start] [COMMAND...]
# A COMMAND is run in the clone afterwards (for example: npm test). Needs root, mmdebstrap and the network;
# takes a few minutes; not part of CI. This machine's npm, apt and name resolution settings are copied
# into the root, which is removed at the end (KEEP=1 leaves it and prints where it is).
set -eu

suite="${1:-trixie}"
phase="${2:-start}"
[ $# -ge 2 ] && shift 2 || shift $#
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
target=$(mktemp -d "${TMPDIR:-/var/tmp}/cairn-fresh-debian.XXXXXX")
clean_up() {
  if [ "${KEEP:-0}" = 1 ]; then echo "kept: $target"; else rm -rf "$target"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

mmdebstrap --quiet --variant=minbase --include=nodejs,npm,ca-certificates "$suite" "$target"
git clone --quiet --no-local "$root" "$target/srv/cairn"

# What this machine needs to reach its registries, the new root needs too.
copy_setting() { [ ! -f "$1" ] || { mkdir -p "$(dirname "$target$2")" && cp "$1" "$target$2"; }; }
copy_setting /etc/resolv.conf /etc/resolv.conf
copy_setting /etc/hosts /etc/hosts
copy_setting /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
copy_setting "$(npm config get userconfig 2>/dev/null)" /root/.npmrc
copy_setting "$(npm config get globalconfig 2>/dev/null)" /etc/npmrc
for setting in $(grep -ls 'Acquire' /etc/apt/apt.conf.d/* || true); do copy_setting "$setting" "$setting"; done
for setting in /etc/apt/auth.conf /etc/apt/auth.conf.d/*; do copy_setting "$setting" "$setting"; done

# The mounts live in a name space of their own and go away with it.
cat >"$target/check" <<'INSIDE'
set -eu
cd /srv/cairn
export HOME=/root
echo "host: $(node -v), npm $(npm -v)"
sh scripts/bootstrap.sh "$CAIRN_PHASE"
sh scripts/bootstrap.sh "$CAIRN_PHASE" | tee /tmp/second-run
[ ! -s /tmp/second-run ] || { echo "the second run was not a no-op" >&2; exit 1; }
version=$(node_modules/.bin/node -p 'require("sqlite3"); process.version')
case "$version" in v26.*) ;; *) echo "the runtime is $version" >&2; exit 1 ;; esac
echo "runtime: $version with sqlite3"
"$@"
INSIDE
CAIRN_PHASE="$phase" unshare --mount --propagation private sh -c '
  set -eu
  target=$1
  shift
  mount -t proc proc "$target/proc"
  mount --rbind /dev "$target/dev"
  mount --rbind /sys "$target/sys"
  if [ $# -eq 0 ]; then set -- true; fi
  chroot "$target" sh /check "$@"
' sh "$target" "$@"
echo "fresh Debian $suite: passed"
