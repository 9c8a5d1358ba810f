#!/bin/sh
# Installs what a bare clone lacks, and only that:   sh scripts/bootstrap.sh start|test
#
# Needs Debian 12 or newer, any Node.js >= 20 and npm; root to install Debian packages. In order: Debian
# packages (scripts/packages.txt), node modules exactly as locked, which brings the pinned Node 26 to
# node_modules/.bin/node, and two native modules, compiled against the headers that come with that Node: sqlite3's,
# and our own for checksums. A second run finds all of it, uses no network, and takes well under a second.
# Without root it names the missing packages and goes on as far as it can.
#
# It does not start anything, and it never edits a tracked file.
set -eu

phase="${1:-start}"
case "$phase" in
  start | test) ;;
  *)
    echo "usage: sh scripts/bootstrap.sh start|test" >&2
    exit 2
    ;;
esac

root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
cd "$root"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

say() { echo "bootstrap: $*"; }
fail() {
  echo "bootstrap: $1" >&2
  echo "bootstrap: next step: $2" >&2
  exit 1
}

# Two of us at once would tear node_modules apart: the second waits, then finds everything done.
wait_for_turn() {
  command -v flock >/dev/null 2>&1 || return 0
  exec 9<scripts/bootstrap.sh
  flock -n 9 && return 0
  say "waiting for another bootstrap of this tree to end"
  flock 9
}

is_present() {
  case "$1" in
    /*)
      # A pattern: libraries lie in a directory named after the processor.
      for candidate in $1; do [ ! -e "$candidate" ] || return 0; done
      return 1
      ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# Prints the packages of the given phases whose command or file is not there.
missing_packages() {
  wanted_phases=" $* "
  while read -r package_phase package probe _reason; do
    case "$package_phase" in '' | '#'*) continue ;; esac
    case "$wanted_phases" in *" $package_phase "*) ;; *) continue ;; esac
    is_present "$probe" || printf ' %s' "$package"
  done <scripts/packages.txt
}

install_packages() {
  packages=$(missing_packages "$@")
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    say "missing Debian packages:$packages"
    say "going on without them; as root: apt-get install$packages"
    return 0
  fi
  say "installing Debian packages:$packages"
  export DEBIAN_FRONTEND=noninteractive
  # One unreachable third-party source must not stop us: what counts is whether the install succeeds.
  apt-get update -q -o DPkg::Lock::Timeout=120 >/dev/null || say "apt-get update reported an error, going on"
  # $packages is a list of words on purpose.
  # shellcheck disable=SC2086
  apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 $packages >/dev/null ||
    fail "apt-get could not install:$packages" "see its message above, then run this again"
  packages=$(missing_packages "$@")
  [ -z "$packages" ] || fail "installed, but still not found:$packages" "check scripts/packages.txt against this Debian"
}

check_host_node() {
  command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 ||
    fail "node or npm is not installed" "apt-get install nodejs npm (Node.js 20 or newer)"
  host_node_major=$(node -p 'process.versions.node.split(".")[0]')
  [ "$host_node_major" -ge 20 ] || fail "Node.js $(node -v) is too old" "install Node.js 20 or newer"
}

install_node_modules() {
  if node scripts/node-modules-state.mjs; then return 0; fi
  say "installing node modules as locked (package-lock.json)"
  # No install script of any package is run: the one native module we need is built below, from source,
  # with the right headers, and nothing tries to download a prebuilt binary from elsewhere.
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error ||
    fail "npm could not install the node modules" "see its message above; is the npm registry reachable?"
  node scripts/node-modules-state.mjs || fail "npm ci left node_modules incomplete" "run npm ci and read its output"
}

# npm 9 links no program when two optional packages offer one of the same name and only one can be installed.
link_runtime() {
  arch=$(node -p process.arch)
  if [ node_modules/.bin/node -ef "node_modules/node-linux-$arch/bin/node" ]; then return 0; fi
  ln -sf "../node-linux-$arch/bin/node" node_modules/.bin/node
  node_modules/.bin/node -v >/dev/null || fail "the Node of node-linux-$arch does not run here" "install the library it names above; it needs Debian 12 or newer"
}

is_sqlite3_usable() { node_modules/.bin/node -e 'require("sqlite3")' 2>/dev/null; }

build_sqlite3() {
  if is_sqlite3_usable; then return 0; fi
  install_packages build
  # The directory of the Node package of this processor, which carries the headers too.
  node_directory=$(readlink -f node_modules/.bin/node)
  node_directory=${node_directory%/bin/node}
  say "compiling sqlite3's native module (about a minute)"
  build_log="$root/node_modules/sqlite3/build.log"
  if ! (
    cd node_modules/sqlite3
    # By environment, because node-gyp lets npm's settings of this name win over its own option.
    export PATH="$root/node_modules/.bin:$PATH" JOBS=max npm_config_nodedir="$node_directory"
    node ../node-gyp/bin/node-gyp.js rebuild >"$build_log" 2>&1
  ); then
    tail -n 25 "$build_log" >&2
    fail "sqlite3's native module did not compile" "install g++, make and python3; the whole log is $build_log"
  fi
  is_sqlite3_usable || fail "sqlite3 was compiled but does not load" \
    "run node_modules/.bin/node -e 'require(\"sqlite3\")' and read the message"
}

# CRC32C by the processor's instruction. Without it everything works, and checksums take five times the time.
build_checksums() {
  source=core/wire/native/checksums.c
  target=node_modules/.cache/cairn-native/checksums.node
  if [ "$target" -nt "$source" ]; then return 0; fi
  install_packages build
  arch=$(node -p process.arch)
  mkdir -p "${target%/*}"
  if ! build_log=$(cc -O2 -fPIC -shared -Wall -Wextra -I "node_modules/node-linux-$arch/include/node" \
    "$source" -o "$target.new" 2>&1); then
    say "$source did not compile, going on with slower checksums:"
    echo "$build_log" >&2
    return 0
  fi
  # Renamed, because programs that run may have the old one mapped.
  mv "$target.new" "$target"
}

wait_for_turn
case "$phase" in
  start) install_packages start ;;
  test) install_packages start test ;;
esac
check_host_node
install_node_modules
link_runtime
build_sqlite3
build_checksums
