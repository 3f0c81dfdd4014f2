#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the guests with KUnit: every test that chm has, but the smoke test.  From
# the kernel command line, $scale (percent) sizes the long ones, $races and $volume
# those in which readers and writers race; with $suites KUnit tests alone.

. ./check.sh
. /flows.sh
. /peers.sh

rc=0
modules='chm_test chm_test_wear chm_test_writers chm_test_race chm_test_cell chm_test_sound'

load_unload() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		insmod chm.ko && rmmod chm || return
	done
}

sample() { insmod "$1.ko" && rmmod "$1"; }

# Reports come out by themselves; few watchpoints would mean that few can.
watched() {
	echo "kcsan: measured: $(grep -E '^(setup_watch|data_r|assert_f)' "$kcsan" |
		tr '\n' ' ')"
	[ "$(sed -n 's/^setup_watchpoints: //p' "$kcsan")" -ge 200000 ]
}

kcsan=/sys/kernel/debug/kcsan
[ ! -e $kcsan ] || echo on >$kcsan
[ -n "${suites-}" ] || check load_unload load_unload
insmod chm.ko || exit
if [ -z "${suites-}" ]; then
	sh debugfs.sh || rc=1
	if [ -e chm_flows.ko ]; then
		check chm_policy sample chm_policy
		test_flows 100
	fi
	test_peers 300 1000
fi
for module in $modules; do
	# The last one has a race that must be seen: look eight times as often.
	[ ! -e $kcsan ] || [ "$module" != chm_test_sound ] ||
		echo 500 >/sys/module/kcsan/parameters/skip_watch
	case $module in
	chm_test_race) set -- scale="${races:-100}" volume="${volume:-0}" ;;
	*)             set -- scale="${scale:-100}" ;;
	esac
	check "load_$module" insmod "$module.ko" "$@"
done
# shellcheck disable=SC2086 # words
check unload rmmod $modules chm
[ ! -e $kcsan ] || check kcsan_watchpoints watched
exit $rc
