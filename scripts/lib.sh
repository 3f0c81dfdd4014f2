# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Shared by all of scripts/: messages, packages, the cache, building modules.
# Sourced; progress goes to stderr, results to stdout.

set -euo pipefail
shopt -s inherit_errexit nullglob

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # for those who source this
cache=${XDG_CACHE_HOME:-$HOME/.cache}/chm
export LC_ALL=C
unset MAKEFLAGS MAKELEVEL	# of the make that may have called us

# Time runs from the start of the outermost script.
export CHM_START=${CHM_START:-$EPOCHSECONDS}
say()  {
	local t=$((EPOCHSECONDS - CHM_START))

	printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}
step() { say "== $*"; }
die()  { say "error: $*"; exit 2; }
# What needs this can't run here.
unable() { say "not available: $*"; exit 3; }

# usage FILE: the comment that opens FILE
usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "$1"; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

retry() {
	"$@" || { sleep 5; "$@"; } || { sleep 20; "$@"; }
}

# The package lists may be missing or old; once per run is enough.
apt_update() {
	[ -z "${apt_updated-}" ] || return 0
	apt_updated=1
	say "apt-get update"
	retry as_root apt-get -qq update >&2
}

need_packages() {
	local p missing=()

	for p; do
		dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null |
			grep -q '^ii' || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	apt_update
	say "installing ${missing[*]}"
	retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install \
		-y --no-install-recommends "${missing[@]}" >&2 </dev/null
}

# mirror NAME: where this machine's sources have debian or debian-security, if they do
mirror() {
	# shellcheck disable=SC2016 # apt's
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
		awk -v end="/$1(.list)?/?$" '$0 ~ end && !n++'
}

# suite_sources SUITE: lines for apt, its security updates included
suite_sources() {
	local keys options debian security

	keys=(/usr/share/keyrings/debian-archive-keyring.*)
	[ ${#keys[@]} -gt 0 ] || unable "package debian-archive-keyring"
	options="[signed-by=${keys[0]} targets=Packages]"
	debian=$(mirror debian)
	[ -n "$debian" ] || unable "a mirror of Debian in apt's sources"
	security=$(mirror debian-security)
	security=${security:-${debian/%debian*/debian-security}}
	echo "deb $options $debian $1 main"
	case $1 in
	sid | *-*) ;;
	*) echo "deb $options $security $1-security main" ;;
	esac
}

suite_conf() {
	cat <<-EOF
		Dir::State::Lists "$1/lists";
		Dir::State::Status "/dev/null";
		Dir::Cache "$1";
		Dir::Cache::pkgcache "pkgcache.bin";
		Dir::Etc::SourceList "$1/sources";
		Dir::Etc::SourceParts "-";
		Dir::Etc::Preferences "-";
		Dir::Etc::PreferencesParts "$1/none";
		Acquire::Languages "none";
		Acquire::Check-Valid-Until "false";
		APT::Sandbox::User "root";
		APT::Update::Error-Mode "any";
	EOF
}

# suite_lists SUITE [-f]: fetch its package lists, once a day or, with -f, now.
# Old ones are better than none.
suite_lists() {
	local dir=$cache/apt/$1

	mkdir -p "$dir"/{lists,archives}/partial "$dir/none"
	exec 8>"$dir/lock"
	flock 8
	# At once: others may be reading it.
	suite_conf "$dir" >"$dir/conf.new"
	mv "$dir/conf.new" "$dir/conf"
	if [ "${2-}" = -f ] || [ -z "$(find "$dir/fetched" -mtime -1 2>/dev/null)" ]; then
		say "apt-get update for $1"
		suite_sources "$1" >"$dir/sources"
		if [ -z "$(find "$dir/failed" -mmin -10 2>/dev/null)" ] &&
		   retry apt-get -c "$dir/conf" -qq update >&2; then
			touch "$dir/fetched"
		else
			touch "$dir/failed"
			[ -e "$dir/fetched" ] || unable "Debian's suite $1"
		fi
	fi
	exec 8>&-
}

# in_suite SUITE COMMAND...: apt-get or apt-cache, as if SUITE were all there is.
# The machine's own apt is left alone.
in_suite() {
	local suite=$1 command=$2

	shift 2
	suite_lists "$suite"
	"$command" -c "$cache/apt/$suite/conf" "$@"
}

# suite_version SUITE PACKAGE
suite_version() {
	local version

	version=$(in_suite "$1" apt-cache policy "$2" |
		sed -n 's/^ *Candidate: //p')
	case $version in
	'' | '(none)') unable "package $2 in Debian's suite $1" ;;
	esac
	echo "$version"
}

# suite_download SUITE PACKAGE...: their .deb files, into the current directory
suite_download() {
	local suite=$1

	shift
	retry in_suite "$suite" apt-get -qq download "$@" >&2 || {
		# The mirror has newer ones than the lists say.
		suite_lists "$suite" -f
		in_suite "$suite" apt-get -qq download "$@" >&2
	} || unable "packages of Debian's suite $suite: $*"
}

# kernels: the names in scripts/kernels/list
kernels() { awk '/^[^#]/ { print $1 }' "$root/scripts/kernels/list"; }

# newest ARGS...: what scripts/kernel prints for the newest kernel that can be had
newest() {
	local kernel rc

	for kernel in $(kernels | tac); do
		rc=0
		"$root/scripts/kernel" "$@" "$kernel" || rc=$?
		[ $rc = 3 ] || return $rc
	done
	return 3
}

# unit_kernels: those built for KUnit, as "KIND KERNEL"
unit_kernels() {
	awk '/^[^#]/ && $5 != "-" {
		n = split($5, kind, ",")
		for (i = 1; i <= n; i++)
			print kind[i], $1
	}' "$root/scripts/kernels/list"
}

# Debian's 6.1 headers lack the BTF of vmlinux; kbuild says so every time.
kbuild() {
	make -s -j"$(nproc)" "$@" modules 2>&1 |
		{ grep -v '^Skipping BTF generation' >&2 || true; }
}

# copy_sources SRC OUT: what make needs; what it has made in OUT stays
copy_sources() {
	mkdir -p "$2"
	rsync -a --delete --exclude .git --include '*/' --include '*.[ch]' \
		--include 'Kbuild*' --include Makefile --exclude '*' "$1/" "$2/"
}

# build_modules KDIR SRC OUT [MAKE-ARGS]: build the chm tree SRC, and its
# samples, against the kernel KDIR in OUT, a copy.  SRC stays untouched.
build_modules() {
	local kdir=$1 src=$2 out=$3 sample

	shift 3
	copy_sources "$src" "$out"
	kbuild -C "$kdir" M="$out" "$@" || return
	for sample in "$out"/samples/*/Kbuild; do
		kbuild -C "$kdir" M="$(dirname "$sample")" \
			KBUILD_EXTRA_SYMBOLS="$out/Module.symvers" "$@" || return
	done
}

# build_older KDIR OUT [MAKE-ARGS]: a module that insmod has to refuse, chm_peers_older.ko,
# in OUT, where build_modules was before: chm_peers as built with an older chm, which had
# another CHM_ABI in its header and in its Module.symvers
build_older() {
	local kdir=$1 out=$2 older=$2/older abi

	shift 2
	abi=$(sed -nE 's/^#define CHM_ABI\s+//p' "$out/chm.h")
	mkdir -p "$older/samples/chm_peers"
	cp "$out"/{chm,chm_chunk,chm_compat}.h "$out/Kbuild.compat" \
		"$out/Module.symvers" "$older/"
	cp "$out"/samples/chm_peers/{Kbuild,chm_peers.c} "$older/samples/chm_peers/"
	sed -i -E "s/^(#define CHM_ABI\s+).*/\1$((abi - 1))/" "$older/chm.h"
	sed -i "s/\bchm_abi_$abi\b/chm_abi_$((abi - 1))/" "$older"/{chm.h,Module.symvers}
	kbuild -C "$kdir" M="$older/samples/chm_peers" \
		KBUILD_EXTRA_SYMBOLS="$older/Module.symvers" "$@" || return
	mv "$older/samples/chm_peers/chm_peers.ko" "$out/chm_peers_older.ko"
	rm -r "$older"
}

# build_unit KIND KDIR SRC OUT: where time matters less, chm looks for pairs that
# readers write to, as well.
build_unit() {
	local kind=$1 options=(CONFIG_CHM_DEBUG=y)

	shift
	case $kind in
	plain) options=() ;;
	uml)   options=(ARCH=um) ;;
	uml-*) options+=(ARCH=um) ;;
	esac
	build_modules "$@" "${options[@]}" && build_older "$1" "$3" "${options[@]}"
}

# build_core KIND KDIR SRC OUT [MAKE-ARGS]: no more than chm and its torture
build_core() {
	local options=(CONFIG_CHM_KUNIT_TEST= CONFIG_CHM_BENCH= "${@:5}")

	case $1 in
	uml*) options+=(ARCH=um) ;;
	esac
	case $1 in
	debug | kcsan | uml-kasan) options+=(CONFIG_CHM_DEBUG=y) ;;
	esac
	copy_sources "$3" "$4"
	kbuild -C "$2" M="$4" "${options[@]}"
}

# run_unit KIND KDIR OUT LOG [GLOB]: boot the modules of OUT for scripts/guest/unit.sh;
# prints the verdict and returns it, 0 or 1; 3 if the guest can't run here.  In QEMU,
# the debug kernel is up to 100 times slower than the plain one, KCSAN 10 times, hence
# the scale (percent) of the tests.  They have their full length natively, where there
# is time for a volume (millions) of lookups besides.  With GLOB no more than the KUnit
# suites that it matches run.
run_unit() {
	local kind=$1 kdir=$2 out=$3 log=$4 files mem=${MEM:-2G} judge=()
	local scale=100 races=100 volume=0 guest=qemu
	local checks=275	# all of them
	local only=() cases=''

	files=("$out"/chm*.ko "$out"/samples/*/*.ko
	       "$root"/scripts/guest/{debugfs,flows,peers,traffic}.sh)
	# A table past kvmalloc()'s limit takes a guest of more than 4 GiB.
	[ -n "${MEM-}" ] || [ "$(free_kib)" -lt $((12 << 20)) ] || mem=6G
	case $kind in
	plain)     scale=10 races=50 ;;
	debug)     mem=1G scale=10 races=10 checks=285 judge=(--debug) ;;
	kcsan)     mem=1G scale=10 races=10 checks=284 ;;
	uml)       mem=3G guest=uml volume=1000 ;;
	uml-kasan) mem=3G guest=uml scale=20 races=20 volume=20 ;;
	esac
	cases=$(count_cases "$out"/chm_test*.c)
	[ -z "${5-}" ] || volume=0 checks=1 cases=1 only=("suites=$5" "kunit.filter_glob=$5")
	"$root/scripts/$guest" -k "$kdir" -j "$root/scripts/guest/unit.sh" \
		-l "$log" -m "$mem" -t "${TIMEOUT:-2400}" \
		-a "scale=$scale races=$races volume=$volume ${only[*]}" "${files[@]}" ||
		return
	"$root/scripts/judge" "${judge[@]}" --min-checks $checks \
		--min-tests "$cases" "$log"
}

# make_initramfs DIR JOB [FILE...]: prints one, which is made in DIR: busybox, with
# JOB and the files in its /
make_initramfs() {
	local dir=$1 job=$2 applet

	shift 2
	mkdir -p "$dir"/{bin,dev,proc,sys,tmp}
	cp /bin/busybox "$dir/bin/"
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$dir/bin/$applet"
	done
	install -m 755 "$root/scripts/guest/init" "$dir/init"
	cp "$root/scripts/guest/check.sh" "$dir/"
	cp "$job" "$dir/job"
	[ $# = 0 ] || cp "$@" "$dir/"
	(cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0)
}

# memory_dir MEM: where the memory of User Mode Linux can be a file of that size.  It
# executes from that, which containers often forbid in /dev/shm.
memory_dir() {
	local kib=$(($(numfmt --from=iec "$1") >> 10)) dir avail type options

	[ "$(free_kib)" -ge $kib ] ||
		unable "$(($(free_kib) >> 10)) MiB of memory are available, not $1"
	for dir in /dev/shm "${TMPDIR:-/tmp}"; do
		read -r avail type < <(df -k --output=avail,fstype "$dir" | tail -n 1)
		options=,$(findmnt -n -o OPTIONS -T "$dir"),
		if [ ! -w "$dir" ] || [[ $options == *,noexec,* ]]; then
			say "$dir is read-only or noexec"
		elif [ "$avail" -lt $kib ]; then
			say "$dir has room for $((avail >> 10)) MiB only"
		else
			[ "$type" = tmpfs ] || say "warning: $dir is no" \
				"tmpfs: writing it to disk may disturb"
			echo "$dir"
			return
		fi
	done
	unable "UML needs $1 for its memory: make room, or set TMPDIR or MEM"
}

# What every User Mode Linux is told.  Several CPUs take seccomp=on; earlyprintk shows
# a panic before there is a console.
# shellcheck disable=SC2034 # for those who source this
uml_args=(seccomp=on con=null 'con0=null,fd:1' earlyprintk)

free_kib() { awk '/^MemAvailable/ { print $2 }' /proc/meminfo; }

# Every case in the source has to run.
count_cases() { grep -hoE 'KUNIT_CASE(_[A-Z]+)*\(' "$@" | wc -l; }

# --- Mutations ---

# change SRC PATCH [-R]: a copy of the sources.  New files are newer than what make has
# built, these and the former ones alike.
change() {
	patch -s -d "$1" -p1 --no-backup-if-mismatch "${@:3}" <"$2" >&2 || return 2
	sed -n 's:^+++ b/::p' "$2" | (cd "$1" && xargs touch)
}

guest=''

# start_guest COMMAND...: in the background, in a process group of its own
start_guest() {
	set -m
	# shellcheck disable=SC2154 # theirs who source this
	"$@" >"$tmp/verdict" 2>&1 &
	guest=$!
	set +m
}

# end_guest: and wait for all of it, lest it disturb the next
end_guest() {
	[ -n "$guest" ] && kill -- "-$guest" 2>/dev/null || return 0
	while kill -0 -- "-$guest" 2>/dev/null; do
		sleep 0.1
	done
}

# await_line PATTERN LOG: wait for the guest, but end it when LOG has such a line
await_line() {
	local rc=0

	while kill -0 "$guest" 2>/dev/null && ! grep -qaP -- "$1" "$2"; do
		sleep 0.2
	done
	# Once: timeout(1) starts to wait anew with each signal.
	end_guest
	wait "$guest" || rc=$?
	guest=''
	return $rc
}
