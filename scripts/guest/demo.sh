#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the demo guest (scripts/demo): a tour of chm, as typed by a person at
# the root prompt of a stock kernel.  Every claim is checked.

. /flows.sh

chm=/sys/kernel/debug/chm
pairs=100000
probe=777777777		# a key that is there throughout

heading() { echo; echo "=== $*"; }

ok()   { echo "CHECK ok $1"; }
fail() { echo "CHECK FAIL $1: $2"; }

# check NAME COMMAND...
check() {
	name=$1
	shift
	if "$@"; then ok "$name"; else fail "$name" "not so: $*"; fi
}

# is NAME ACTUAL EXPECTED
is() {
	if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "'$2', not '$3'"; fi
}

# run COMMAND: as if typed; leaves its output in $out and its status in $rc
run() {
	echo "# $1"
	rc=0
	out=$(eval "$1" 2>&1) || rc=$?
	[ -z "$out" ] || echo "$out"
}

# done_by NAME COMMAND: it succeeds
done_by() {
	run "$2"
	is "$1" "$rc" 0
}

# refused NAME REASON COMMAND: it fails, for that reason
refused() {
	run "$3"
	case $rc:$out in
	0:*)	fail "$1" "it succeeded" ;;
	*"$2"*)	ok "$1" ;;
	*)	fail "$1" "'$out', not '$2'" ;;
	esac
}

stat_of() { sed -n "s/^$2: //p" "$chm/$1/stats"; }

# kB in use by anything but the page cache.  Free pages that wait in the lists
# of the CPUs are not in MemFree; after a big free they are many.
used() {
	awk '/^MemTotal/ { used = $2 }
	     /^(MemFree|Buffers|Cached):/ { used -= $2 }
	     $1 == "count:" { used -= $2 * 4 }
	     END { print used }' /proc/meminfo /proc/zoneinfo
}

# survey [LINES]: of a listing (or its head) of pairs in which each value equals
# its key: how many lines, how many of them wrong, how many keys twice
survey() {
	head -n "${1:-10000000}" demo/entries | awk '
		$1 != $2 || NF != 2 { wrong++ }
		seen[$1]++ { twice++ }
		END { print NR, wrong + 0, twice + 0 }'
}

order() { echo "$1" >demo/control; }

# One lookup: the file is opened once, written, and read back.
lookup() {
	{ echo "$1" >&3 && cat <&3; } 3<>demo/lookup
}

# === The map ===

load() {
	heading "Two modules: the map, and a packet filter that uses it"
	done_by insmod_chm 'insmod /chm.ko'
	done_by insmod_sample 'insmod /chm_policy.ko'
	run 'lsmod'
	echo "# cd $chm"
	cd $chm || exit
}

by_hand() {
	heading "Make a map and use it by hand"
	run 'cat control'
	check usage [ -n "$out" ]
	done_by create 'echo "create demo key=8 value=8" > control'
	run 'ls demo'
	run 'cat demo/control'
	done_by insert 'echo "insert 1000000 42" > demo/control'
	run 'cat demo/entries'
	is entries "$out" "1000000 42"
	done_by replace 'echo "replace 1000000 43" > demo/control'
	echo "# { echo 1000000 >&3; cat <&3; } 3<> demo/lookup"
	out=$(lookup 1000000)
	echo "$out"
	is lookup "$out" "1000000 43"
	done_by remove 'echo "remove 1000000" > demo/control'
	is gone "$(cat demo/entries)" ""
}

mistakes() {
	heading "Mistakes are refused and change nothing"
	done_by insert_probe "echo 'insert $probe $probe' > demo/control"
	refused insert_twice "File exists" \
		"echo 'insert $probe 1' > demo/control"
	refused remove_absent "No such file" "echo 'remove 5' > demo/control"
	refused lookup_absent "No such file" "echo 5 > demo/lookup"
	refused no_number "Invalid argument" \
		"echo 'insert five 1' > demo/control"
	refused name_taken "File exists" \
		"echo 'create demo key=4 value=4' > control"
	is unchanged "$(cat demo/entries)" "$probe $probe"
}

# Each listing may catch any of the pairs, but none wrong and none twice.
fill() {
	heading "$pairs pairs, read while they are being written"
	seen='' grows=$(stat_of demo grows) bytes=$(stat_of demo bytes)
	echo "# echo 'fill 0 $pairs' > demo/control &"
	{ order "fill 0 $pairs"; echo $? >/tmp/filled; } &
	wrong='' missed=0
	until [ -s /tmp/filled ]; do
		[ "$(lookup $probe)" = "$probe $probe" ] || missed=$((missed + 1))
		seen=$(survey 2000)
		echo "entries, wrong, twice: $seen of $(stat_of demo entries)"
		case $seen in *' 0 0') ;; *) wrong="$wrong [$seen]" ;; esac
	done
	wait
	is fill "$(cat /tmp/filled)" 0
	check fill_was_seen [ -n "$seen" ]
	is fill_probe_missed $missed 0
	is fill_wrong "$wrong" ""
	is fill_all "$(survey)" "$((pairs + 1)) 0 0"
}

look() {
	heading "What it looks like inside"
	run 'cat demo/stats'
	is count "$(stat_of demo entries)" $((pairs + 1))
	more_grows=$(stat_of demo grows) more_bytes=$(stat_of demo bytes)
	echo "grows: $grows before, $more_grows now"
	echo "bytes: $bytes before, $more_bytes now;" \
		"$((more_bytes / pairs)) for each pair of 16"
	check grew [ "$more_grows" -gt "$grows" ]
	check compact [ "$more_bytes" -lt $((pairs * 40)) ]
	echo "Pairs by distance from their home chunk:"
	run 'cat demo/probes'
	is probes "$(echo "$out" | awk '{ n += $2 } END { print n }')" \
		$((pairs + 1))
	run 'head -n 5 demo/entries'
	done_by verify 'echo verify > demo/control'
}

rebuild_until_told() {
	rounds=0
	while [ ! -e /tmp/stop ]; do
		order grow && order rehash && order shrink || return
		rounds=$((rounds + 1))
	done
	echo $rounds >/tmp/rounds
}

# Now all pairs are there throughout, so each walk must find every one.
rebuild() {
	heading "Move all pairs again and again; each walk finds each pair once"
	echo "# while :; do for order in grow rehash shrink; do"
	echo ">	echo \$order > demo/control; done; done &"
	rebuild_until_told &
	missed=0
	for round in 1 2 3; do
		for key in $probe 0 1 2 3 5 8 13 21 $((pairs - round)); do
			[ "$(lookup "$key")" = "$key $key" ] ||
				missed=$((missed + 1))
		done
		seen=$(survey)
		echo "entries, wrong, twice: $seen"
		is "walk_$round" "$seen" "$((pairs + 1)) 0 0"
	done
	: >/tmp/stop
	wait
	is lookups_missed $missed 0
	check rebuilt [ -s /tmp/rounds ]
	echo "moved $((3 * $(cat /tmp/rounds))) times meanwhile"
	done_by verify_again 'echo verify > demo/control'
}

# Whatever is left when the pairs are gone must be far less than they took.
memory() {
	heading "A million pairs, and their memory back"
	done_by million "echo 'fill $pairs $((1000000 - pairs))' > demo/control"
	run 'grep -E "^(entries|bytes|load|grows)" demo/stats'
	is million_count "$(stat_of demo entries)" 1000001
	full=$(used)
	done_by destroy 'echo "destroy demo" > control'
	check no_directory [ ! -e demo ]
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		now=$(used)
		[ "$now" -gt $((before + 4096)) ] || break
		sleep 1
	done
	echo "kB in use: $before before, $full with the pairs, $now now"
	check took_memory [ "$full" -gt $((before + 16384)) ]
	check memory_back [ "$now" -le $((before + 4096)) ]
}

# === The sample ===

# fetch PORT: the page from there, or nothing
fetch() {
	run "timeout 2 wget -q -O - http://127.0.0.1:$1/page"
}

passes()  { fetch "$2"; is "$1" "$out" hello; }

dropped() {
	fetch "$2"
	case $out in
	*hello*) fail "$1" "it passed" ;;
	*)	 ok "$1" ;;
	esac
}

# packets PROTOCOL PORT: what the rule for it has counted
packets() { sed -n "s/^$1 $2 .*: packets \([0-9]*\) .*/\1/p" rules; }

servers() {
	ip link set lo up
	mkdir /www
	echo hello >/www/page
	dd if=/dev/zero of=/www/big bs=1M count=4 2>/dev/null
	httpd -p 8080 -h /www
	httpd -p 8081 -h /www
}

policy() {
	heading "The sample: a lookup for each packet that arrives"
	echo "# cd /sys/kernel/debug/chm_policy"
	cd /sys/kernel/debug/chm_policy || exit
	run 'cat control'
	servers
	echo "Two web servers listen, on ports 8080 and 8081."
	passes pass_8080 8080
	done_by add_drop 'echo "add tcp 8080 drop" > control'
	dropped drop_8080 8080
	passes pass_8081 8081
	done_by add_count 'echo "add udp 53 count 7" > control'
	run 'timeout 3 nslookup example.org 127.0.0.1 > /dev/null 2>&1'
	done_by rules 'cat rules'
	check drop_counted [ "$(packets tcp 8080)" -gt 0 ]
	check count_counted [ "$(packets udp 53)" -gt 0 ]
	refused add_twice "File exists" 'echo "add tcp 8080 accept" > control'
	refused add_range "out of range" 'echo "add tcp 65536 drop" > control'
	done_by del_drop 'echo "del tcp 8080" > control'
	passes pass_again 8080
}

others() {
	heading "Its map can be looked at, but not changed, from outside"
	done_by sample_stats "cat $chm/chm_policy/stats"
	is sample_count "$(stat_of chm_policy entries)" 1
	run "echo clear > $chm/chm_policy/control"
	check sample_read_only [ "$rc" != 0 ]
	is sample_unchanged "$(stat_of chm_policy entries)" 1
}

# === The other sample ===

# exact NAME: everything is counted, once
exact() {
	run 'cat totals'
	# shellcheck disable=SC2086 # two words
	lo=$(lo_since $lo_before)
	echo "lo has had: $lo"
	is "$1" "$(totals_of total)" "$lo"
}

flows() {
	heading "The other sample: packets are counted in the map itself"
	lo_before=$(lo_counts)
	done_by insmod_flows 'insmod /chm_flows.ko'
	echo "# cd /sys/kernel/debug/chm_flows"
	cd /sys/kernel/debug/chm_flows || exit
	echo "Downloads, pings and probes of many ports, IPv4 and IPv6, all at once:"
	done_by traffic 'sh /traffic.sh'
	run "grep -E '^(entries|grows|bytes)' $chm/chm_flows/stats"
	check flows_grew [ "$(stat_of chm_flows grows)" -ge 5 ]
	check flows_many [ "$(stat_of chm_flows entries)" -ge 2000 ]
	run 'grep -vE "^(17|58) .* packets 1 " flows | head -n 8'
	check flows_listed [ -n "$out" ]
	exact flows_exact
}

# Flows that are expired at once begin anew with their next packet.
expire() {
	heading "Idle flows expire, and none of their packets goes uncounted"
	echo "# sh /traffic.sh & while :; do echo 1 > expire; done"
	sh /traffic.sh &
	while kill -0 $! 2>/dev/null; do
		echo 1 >expire
		usleep 50000
	done
	exact expire_exact
	echo "Idle is what has had no packet from one time to the next."
	done_by expire_mark 'echo 1 > expire'
	done_by expire 'echo 1 > expire'
	exact expired_exact
	is expired_live "$(totals_of live)" "packets 0 bytes 0"
	is expired_entries "$(stat_of chm_flows entries)" 0
	cd / || exit
	sh /traffic.sh 200 &
	sleep 1
	done_by rmmod_flows 'rmmod chm_flows'
	check amid_traffic kill -0 $!
	wait
}

unload() {
	heading "Away with it"
	cd / || exit
	refused chm_in_use "Resource temporarily unavailable" 'rmmod chm'
	done_by rmmod_sample 'rmmod chm_policy'
	passes pass_without 8080
	done_by rmmod_chm 'rmmod chm'
	check all_gone [ ! -e $chm ]
	echo "Warnings of the kernel, but for that of an out-of-tree module"
	echo "and those of a busy host:"
	run 'dmesg -r | grep "^<[0-4]>" |
		grep -vE "taints kernel|interrupt took|hogged CPU|clocksource"'
	is clean_log "$out" ""
}

heading "chm on Linux $(uname -r), as Debian built it"
dmesg -c >/dev/null
before=$(used)
load
by_hand
mistakes
fill
look
rebuild
memory
policy
others
flows
expire
unload
