#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the guests that torture chm.  $torture, from the kernel command line, has
# the parameters of chm_torture.ko, separated by commas.  With $busted, the guest ends
# as soon as the module has finished.

. ./check.sh

debug=/sys/kernel/debug
params=/sys/module/chm_torture/parameters
arguments=$(echo "${torture-}" | tr , ' ')

# shellcheck disable=SC2086 # words
start() { insmod chm_torture.ko $arguments "$@"; }

has_ended() { [ "$(cat $params/running)" = N ]; }

await_end() {
	until has_ended; do
		sleep 1
	done
}

# The verdict of the last run
result() { dmesg | sed -n 's/^.*chm-torture: \(SUCCESS\|FAILURE\): .*/\1/p' | tail -n 1; }

# Read the debugfs files of maps that come and go.
read_debugfs() {
	while ! has_ended; do
		for file in /sys/kernel/debug/chm/torture/*; do
			[ "${file##*/}" = control ] || head -c 100000 "$file"
		done
		sleep 0.3
	done >/dev/null 2>&1
}

# Shrink all caches, and make grace periods short for some time.
disturb() {
	while ! has_ended; do
		echo 3 >/proc/sys/vm/drop_caches
		echo 1 >/sys/kernel/rcu_expedited
		sleep 3
		echo 0 >/sys/kernel/rcu_expedited
		sleep 2
	done
}

set_files() {
	for f in failslab fail_page_alloc; do
		[ ! -e $debug/$f/"$1" ] || echo "$2" >$debug/$f/"$1"
	done
}

# Make one in ten allocations of chm fail for a second, in any task.
fail_allocations() {
	text=$(cat /sys/module/chm/sections/.text)
	[ -e $debug/failslab/require-start ] || return
	set_files require-start "$text"
	set_files require-end "$(printf 0x%x $((text + 0x40000)))"
	while ! has_ended; do
		set_files probability 10
		set_files task-filter N
		sleep 1
		set_files task-filter Y
		set_files probability 100
		sleep 3
	done
}

# Unload the module while all its threads are at work.
unload_under_load() {
	for i in 1 2 3 4 5; do
		start seconds=1000 "seed=$i" || return
		sleep "$i"
		rmmod chm_torture || return
		[ "$(result)" = SUCCESS ] || return
	done
}

torture() {
	start || return
	read_debugfs &
	disturb &
	fail_allocations &
	await_end
	wait
	[ "$(result)" = SUCCESS ] && [ "$(cat $params/errors)" = 0 ]
}

# Few watchpoints would mean that few reports can come.
watched() { [ "$(sed -n 's/^setup_watchpoints: //p' $kcsan)" -ge 200000 ]; }

kcsan=$debug/kcsan
[ ! -e $kcsan ] || echo on >$kcsan
insmod chm.ko || exit
if [ -n "${busted-}" ]; then
	start && await_end
	exit
fi
check unload_under_load unload_under_load
check torture torture
dmesg | sed -n 's/^.*chm-torture: \(SUCCESS\|FAILURE\): /chm_torture: measured: /p' |
	tail -n 1
check unload rmmod chm_torture chm
[ ! -e $kcsan ] || check kcsan_watchpoints watched
