#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Tests of the debugfs interface (Documentation/debugfs.rst); chm.ko is loaded.
#
# The shell's own echo makes one write() of exactly these bytes, tells why it
# failed, and costs no exec.

. ./check.sh

chm=/sys/kernel/debug/chm
tmp=$(mktemp -d)

none='Success'
ebig='Argument list too long'
eexist='File exists'
einval='Invalid argument'
eio='Input/output error'
enodata='No data available'
enoent='No such file or directory'
erange='Numerical result out of range'

# is NAME EXPECTED ACTUAL
is() {
	if [ "$2" = "$3" ]; then
		echo "CHECK ok $1"
	else
		echo "CHECK FAIL $1: '$3', not '$2'"
	fi
}

# writes NAME ERROR FILE BYTES: as echo -e has them; no fork, they cost here
writes() {
	# shellcheck disable=SC3037 # it is busybox's
	if echo -ne "$4" 2>"$tmp/error" >"$chm/$3"; then
		error=$none
	else
		read -r error <"$tmp/error"
		error=${error##*: }
	fi
	is "$1" "$2" "$error"
}

# refuses FILE ERROR BYTES...: each of BYTES
refuses() {
	file=$1 expected=$2
	shift 2
	for bytes; do
		writes "refuses $file '$bytes'" "$expected" "$file" "$bytes"
	done
}

say()     { echo "$2" >"$chm/$1"; }
create()  { say control "create $*"; }
destroy() { say control "destroy $1"; }
stat_of() { sed -n "s/^$2: //p" "$chm/$1/stats"; }
sorted()  { sort -n "$chm/$1/entries" | tr '\n' ' '; }
digits()  { head -c "$1" /dev/zero | tr '\0' "$2"; }

test_create() {
	check usage grep -q '^create NAME' $chm/control
	writes create "$none" control "create m key=8 value=8 class=frozen max=100000 \
		min=10 load=75 growth=200 reclaim=deferred"
	is params "key_size: 8,value_size: 8,slot_size: 16,class: frozen,\
reclaim: deferred,max_load: 75,growth: 200,min_entries: 10,max_entries: 100000," \
		"$(sed 9q $chm/m/stats | tr '\n' ,)"
	is stats "entries chunks slots load bytes displaced longest_probe dead grows \
shrinks rehashes migrated migrated_ns migrating copied \
snapshot_bytes changed retired_bytes gp_waits reseeds failed_allocs aborts " "$(sed -n '10,$s/:.*//p' $chm/m/stats | tr '\n' ' ')"
	is all_zero '0 0.0' "$(sed -n '10,$s/.*: //p' $chm/m/stats | sort -u |
		tr '\n' ' ' | sed 's/ $//')"
	is modes 'control 600,entries 400,lookup 600,probes 400,stats 400,' \
		"$(cd $chm/m && stat -c '%n %a' -- * | tr '\n' ,)"
	is directory_mode 700 "$(stat -c %a $chm)"
	is empty_map '' "$(cat $chm/m/entries)"
	refuses control "$eexist" 'create m key=4 value=4'
	refuses control "$einval" '\n' ' \t\n' create 'create n' foo \
		'Create n key=1 value=1' 'create n key=8' 'create n value=8' \
		'create n key=8 value=8 class=clone' \
		'create n key=8 value=8 class=Word' \
		'create n key=8 value=8 class=' \
		'create n key=8 value=8 reclaim=never' \
		'create n key=8 value=8 key=8' 'create n key=8 value=8 foo=1' \
		'create n key=8 value=8 foo' 'create n key=8 value=8 =1' \
		'create n key=8 value=8 8' 'create n key=0 value=8' \
		'create n key=4097 value=8' 'create n key=8 value=65537' \
		'create n key=-8 value=8' 'create n key=+8 value=8' \
		'create n key=8x value=8' 'create n key= value=8' \
		'create n key=0x value=8' 'create n key=8 value=8 load=24' \
		'create n key=8 value=8 load=96' \
		'create n key=8 value=8 growth=109' \
		'create n key=8 value=8 max=5 min=6' \
		'create n key=8 value=16 class=word' \
		'create n key=8 value=12 class=cell' \
		'create n/n key=8 value=8' 'create . key=8 value=8' \
		'create .. key=8 value=8' 'create control key=8 value=8' \
		"create $(digits 64 n) key=8 value=8" \
		'create n\0 key=8 value=8' 'create \0344 key=8 value=8' \
		'create n key=8 value=8\ncreate o key=8 value=8\n' \
		destroy 'destroy m m' 'destroy .' 'destroy m/stats' 'destroy control'
	refuses control "$erange" 'create n key=4294967296 value=8' \
		'create n key=8 value=8 max=18446744073709551616'
	refuses control "$enoent" 'destroy n'
	writes too_long "$ebig" control "destroy n$(digits 4087 ' ')"
	writes just_fits "$enoent" control "destroy n$(digits 4086 ' ')"
	check at_an_offset grep -q "$einval" <<-EOT
		$(echo 'destroy m' | dd bs=100 seek=8 oflag=seek_bytes \
			conv=notrunc of=$chm/control 2>&1)
	EOT
	is nothing_else_created './control ./m' "$(cd $chm && echo ./*)"
	name=$(digits 63 n)
	writes long_name "$none" control "create $name key=1 value=0"
	writes long_name_destroyed "$none" control "destroy $name"
}

test_update() {
	check usage_of_map grep -qx 'insert KEY VALUE' $chm/m/control
	writes insert "$none" m/control 'insert 1 10'
	writes insert_hex "$none" m/control '\tinsert  0x10  0XfF '
	is inserted '1 10 16 255 ' "$(sorted m)"
	refuses m/control "$eexist" 'insert 1 11'
	refuses m/control "$enoent" 'replace 2 1' 'remove 2'
	writes replace "$none" m/control 'replace 1 11'
	writes upsert "$none" m/control 'upsert 1 12'
	writes upsert_new "$none" m/control 'upsert 2 20'
	writes remove "$none" m/control 'remove 16'
	writes extremes "$none" m/control 'insert 18446744073709551615 0xffffffffffffffff'
	before=$(sorted m)
	is updated '1 12 2 20 18446744073709551615 18446744073709551615 ' "$before"
	refuses m/control "$einval" '\n' insert 'add 1 0 1' 'insert 3' 'insert 3 4 5' \
		'insert 3 -4' 'insert -3 4' 'insert +3 4' 'insert 3 4x' \
		'insert 3,4' 'insert 0x 4' 'insert 0xg 4' 'insert 3 -' \
		'insert 3 4\n\n' 'insert 3 4\ninsert 5 6\n' 'insert 3 4\0' \
		'insert 3\0 4' 'insert 3 \02604' 'insert 3 4\r\n' 'INSERT 3 4' \
		'inser 3 4' 'inserts 3 4' 'remove' 'remove 1 2' 'remove x' \
		'clear 1' 'grow 1' 'verify 1' 'reserve' 'reserve -1' 'reserve 1 2' \
		'fill 1' 'fill 1 -1' 'fill 1 2 3' 'a b c d e f g h i j k l m n'
	refuses m/control "$erange" 'insert 18446744073709551616 1' \
		'insert 3 18446744073709551616' 'insert 0x10000000000000000 1' \
		'fill 18446744073709551615 2' 'fill 1 18446744073709551616' \
		'reserve 18446744073709551616'
	refuses m/control "$ebig" 'reserve 100001'
	writes too_long_for_map "$ebig" m/control "insert 3 $(digits 4087 0)"
	is nothing_changed "$before" "$(sorted m)"
}

test_lookup() {
	is lookup_nothing_yet "cat: read error: $enodata" "$(cat $chm/m/lookup 2>&1)"
	writes lookup "$none" m/lookup 1
	is looked_up '1 12' "$(cat $chm/m/lookup)"
	refuses m/lookup "$enoent" 3
	refuses m/lookup "$einval" '\n' ' ' '1 2' x -1 '1\0' 0x
	refuses m/lookup "$erange" 18446744073709551616
	is lookup_remembered '1 12' "$(cat $chm/m/lookup)"
	say m/control 'replace 1 13'
	is lookup_is_live '1 13' "$(cat $chm/m/lookup)"
	say m/control 'remove 1'
	is lookup_gone "cat: read error: $enodata" "$(cat $chm/m/lookup 2>&1)"
}

test_tables() {
	writes clear "$none" m/control clear
	is cleared 0 "$(stat_of m entries)"
	writes shrink "$none" m/control shrink
	is no_table 0 "$(stat_of m bytes)"
	refuses m/control "$enodata" grow rehash
	writes reserve "$none" m/control 'reserve 1000'
	is reserved 221 "$(stat_of m chunks)"
	writes fill "$none" m/control 'fill 0 1000'
	writes fill_none "$none" m/control 'fill 0 0'
	is filled 1000 "$(stat_of m entries)"
	is within_the_reserve 221 "$(stat_of m chunks)"
	is load 64.6 "$(stat_of m load)"
	is probes "17 1000" \
		"$(awk -F ': ' '{ n += $2 } END { print NR, n }' $chm/m/probes)"
	is probe_names '0 1 16+' "$(cut -d : -f 1 $chm/m/probes | sed -n '1p;2p;$p' |
		tr '\n' ' ' | sed 's/ $//')"
	grows=$(stat_of m grows)
	writes grow "$none" m/control grow
	is grown "445 $((grows + 1))" "$(stat_of m chunks) $(stat_of m grows)"
	rehashes=$(stat_of m rehashes)	# the map tidies up by itself, too
	writes rehash "$none" m/control rehash
	check rehashes [ "$(stat_of m rehashes)" -gt "$rehashes" ]
	is rehashed '445 1000' "$(stat_of m chunks) $(stat_of m migrated)"
	writes verify "$none" m/control verify
	say m/control 'fill 1000000 10'
	writes fill_stops "$eexist" m/control 'fill 999998 3'
	is fill_stopped 1012 "$(stat_of m entries)"
	writes fill_to_max "$ebig" m/control 'fill 2000000 100000'
	is filled_to_max 100000 "$(stat_of m entries)"
	refuses m/control "$ebig" 'insert 5000000 1' 'upsert 5000000 1'
	writes destroy "$none" control "destroy m"
	is destroyed control "$(ls $chm)"
}

# A table that is full beyond its load, of a map that may not have more pairs
test_rehash_at_max() {
	create x key=8 value=8 max=12
	say x/control 'fill 0 12'
	writes rehash_at_max "$none" x/control rehash
	is all_at_max 12 "$(wc -l <$chm/x/entries)"
	destroy x
}

# bytes NAME KEY-SIZE VALUE-SIZE KEY VALUE: insert the pair and read it back
bytes() {
	create b "key=$2" "value=$3"
	writes "$1" "$none" b/control "insert $4 $5"
	is "$1 back" "$4 $5" "$(cat $chm/b/entries)"
	say b/lookup "$4"
	is "$1 looked up" "$4 $5" "$(cat $chm/b/lookup)"
}

test_sizes() {
	bytes one_byte 1 1 255 255
	refuses b/control "$erange" 'insert 256 1' 'insert 1 256' 'fill 200 57' 'fill 256 0'
	writes fill_byte "$none" b/control 'fill 0 255'
	is all_bytes 256 "$(wc -l <$chm/b/entries)"
	destroy b
	bytes two_bytes 2 4 65535 4294967295
	writes fill_narrow "$none" b/control 'fill 256 1'
	destroy b
	create b key=4 value=1
	say b/control 'fill 511 1'
	is value_truncated '511 255' "$(cat $chm/b/entries)"
	destroy b
	bytes no_value 3 0 00ff10 -
	refuses b/control "$einval" 'insert 00ff11 0' 'insert 00ff11' 'insert 0 -' \
		'insert 00ff1 -' 'insert 00ff1122 -' 'insert 00fg11 -' \
		'insert 0x00ff -' 'fill 1 1' 'remove 0'
	destroy b
	bytes sixteen 16 3 000102030405060708090a0b0c0d0e0f fffefd
	writes upper_case "$none" b/control 'insert FF0102030405060708090A0B0C0D0E0F 000000'
	destroy b
	bytes large 4096 65536 "$(digits 8192 a)" "$(digits 131072 5)"
	writes larger "$einval" b/control "insert $(digits 8192 b) $(digits 131074 5)"
	writes largest "$ebig" b/control "remove $(digits 140000 b)"
	writes torn "$einval" b/control "insert $(digits 8192 b) $(digits 131071 5)"
	is untouched 1 "$(stat_of b entries)"
	destroy b
	create b key=8 value=65536
	writes fill_large "$none" b/control 'fill 1 12'
	is listed_large "12 $(((131072 + 2) * 12 + 15))" "$(wc -lc <$chm/b/entries |
		sed 's/^ *//; s/  */ /')"
	destroy b
}

test_kinds() {
	create w key=8 value=8 class=word
	say w/control 'fill 0 1000'
	writes word_replace "$none" w/control 'replace 500 7'
	is word_in_place 0 "$(stat_of w dead)"
	say w/lookup 500
	is word_replaced '500 7' "$(cat $chm/w/lookup)"
	writes word_verify "$none" w/control verify
	create c key=8 value=16 class=cell
	writes cell_add_new "$none" c/control 'add 1 1 5'
	say c/control 'fill 2 1000'
	writes cell_add "$none" c/control 'add 1 1 0x10'
	refuses c/control "$einval" 'add 1 2 1' 'add 1 1 -1' 'add 1 1' 'add 1 1 1 1'
	refuses w/control "$einval" 'add 1 0 1' 'add 1000 0 1'
	n=0
	while [ "$(stat_of c snapshot_bytes)" != 0 ] && [ $((n += 1)) -lt 30 ]; do
		sleep 1
	done
	is cell_snapshot_freed 0 "$(stat_of c snapshot_bytes)"
	say c/lookup 1
	is cell_added '1 00000000000000001500000000000000' "$(cat $chm/c/lookup)"
	writes cell_replace "$none" c/control 'replace 1 01000000000000000200000000000000'
	is cell_replaced '1 01000000000000000200000000000000' "$(cat $chm/c/lookup)"
	is cell_in_place 0 "$(stat_of c dead)"
	writes cell_verify "$none" c/control verify
	destroy c
	create s key=8 value=8 reclaim=sync
	say s/control 'fill 0 1000'
	check sync_waits [ "$(stat_of s gp_waits)" -ge "$(stat_of s grows)" ]
	is sync_retires_nothing 0 "$(stat_of s retired_bytes)"
	destroy w
	destroy s
}

test_open_files() {
	create m key=8 value=8
	say m/control 'fill 0 5000'
	exec 3<$chm/m/entries 4<>$chm/m/lookup 5<$chm/m/stats 6<>$chm/m/control
	head -c 100 <&3 >/dev/null
	check listing_goes_on grep -q . <&3
	exec 7<$chm/m/entries
	is walks_nothing_given_up 0 "$(stat_of m aborts)"
	writes destroy_open "$none" control "destroy m"
	for fd in 3 4 5 6 7; do
		is "read_after_destroy $fd" "cat: read error: $eio" "$(cat <&$fd 2>&1)"
	done
	is write_after_destroy "sh: write error: $eio" "$(sh -c 'echo grow >&6' 2>&1)"
	writes same_name_again "$none" control "create m key=4 value=4"
	is still_dead "cat: read error: $eio" "$(cat <&3 2>&1)"
	check no_rmmod_while_open eval '! rmmod chm 2>/dev/null'
	exec 3<&- 4<&- 5<&- 6<&- 7<&-
	destroy m
}

# What changes while test_walk() reads: keys from 1,000,000 on, and the table.
churn() {
	while [ ! -e "$tmp/stop" ]; do
		for command in 'fill 1000000 10000' grow 'remove 1000000' \
			'remove 1000001' rehash 'upsert 1000000 1' shrink; do
			echo "$command" >$chm/m/control 2>/dev/null
		done
		i=1000000
		while [ $i -lt 1000200 ]; do
			echo "remove $i" >$chm/m/control 2>/dev/null
			i=$((i + 1))
		done
	done
}

test_walk() {
	stable=100000
	if [ -e /proc/lockdep_stats ] || [ -e /sys/kernel/debug/kcsan ]; then
		stable=20000	# slow
	fi
	create m key=4 value=4
	say m/control "fill 0 $stable"
	churn &
	is stable_keys_once "$stable 0" "$(awk '
		seen[$1]++ { twice++ }
		$1 < 1000000 && $1 == $2 { stable++ }
		END { print stable, twice + 0 }' $chm/m/entries)"
	touch "$tmp/stop"
	wait
	rm "$tmp/stop"
	check table_changed [ "$(stat_of m rehashes)" -gt 0 ]
	writes verify_after_churn "$none" m/control verify
	check read_at_an_offset [ "$(dd if=$chm/m/entries bs=4000 skip=5 count=1 \
		2>/dev/null | wc -c)" = 4000 ]
	destroy m
}

test_interrupted() {
	create m key=8 value=8
	sh -c "echo 'fill 0 1000000000' >$chm/m/control" 2>"$tmp/error" &
	sleep 1
	check destroy_ends_fill destroy m
	wait $!
	is fill_ended "sh: write error: $eio" "$(cat "$tmp/error")"
	create m key=8 value=8
	sh -c "echo 'fill 0 1000000000' >$chm/m/control" 2>/dev/null &
	sleep 1
	kill -9 $!
	wait $! 2>/dev/null
	is fill_killed 137 $?
	before=$(stat_of m entries)
	check fill_had_begun [ "$before" -gt 0 ]
	is fill_is_over "$before" "$(stat_of m entries)"
	writes reserve_too_much 'Cannot allocate memory' m/control \
		'reserve 1000000000'
	# 23 bytes a pair.  Nobody is to be killed for memory meanwhile.
	all=$(awk '/^MemAvailable/ { printf "%d", $2 * 1024 / 23 }' /proc/meminfo)
	writes reserve_all_there_is 'Cannot allocate memory' m/control "reserve $all"
	writes reserve_far_too_much "$ebig" m/control \
		'reserve 18446744073709551615'
	destroy m
	create m key=8 value=8 "min=$all"
	echo 'insert 1 1' >$chm/m/control
	check first_table_is_small [ "$(stat_of m chunks)" -le 2 ]
	writes reserve_the_minimum 'Cannot allocate memory' m/control 'reserve 1'
	destroy m
}

# Whichever allocation fails, there is all of a map, or nothing.
test_create_fails() {
	[ -e /proc/self/fail-nth ] || return
	exec 6<>$chm/control
	n=0
	while [ $((n += 1)) -le 40 ]; do
		echo $n >/proc/self/fail-nth
		expected=0
		! echo 'create n key=8 value=8' >&6 || expected=5
		echo 0 >/proc/self/fail-nth
		set -- $chm/n/*
		[ -e "$1" ] || shift
		echo "$# $expected"
		echo 'destroy n' >&6
	done 2>/dev/null >"$tmp/created"
	exec 6<&-
	is created_as_a_whole '' "$(awk '$1 != $2' "$tmp/created")"
}

rehash_until_error() {
	while echo rehash; do :; done 2>&1 >&6 | tail -n 1
}

# Those that wait for others' tables, too, are told that the map is gone.
test_interrupted_moves() {
	for _ in 1 2 3 4 5; do
		create m key=8 value=8
		say m/control 'fill 0 3000'
		exec 6<>$chm/m/control
		for i in 1 2 3; do rehash_until_error >"$tmp/moves$i" & done
		sleep 0.3
		destroy m
		wait
		exec 6<&-
		cat "$tmp"/moves[123]
	done | sort | uniq -c >"$tmp/moves"
	is moves_ended "15 sh: write error: $eio" "$(sed 's/^ *//' "$tmp/moves")"
}

until_stop() {
	while [ ! -e "$tmp/stop" ]; do "$@"; done >/dev/null 2>&1
}

race_makers()   { echo 'create r key=8 value=8' >$chm/control; echo 'fill 0 300' >$chm/r/control; }
race_breakers() { echo 'destroy r' >$chm/control; }
race_readers()  { cat $chm/r/* $chm/control; ls -lR $chm; }
race_writers()  { echo 5 >$chm/r/lookup; echo grow >$chm/r/control; echo verify >$chm/r/control; }

# They create, destroy, read and write the same directory all at once.
test_races() {
	for what in makers breakers readers writers makers breakers readers; do
		until_stop race_$what &
	done
	sleep 4
	touch "$tmp/stop"
	wait
	rm "$tmp/stop"
	destroy r 2>/dev/null	# if it is there
	is after_races control "$(ls $chm)"
	for _ in 1 2 3 4 5 6 7 8; do
		create d key=8 value=8
		for i in 1 2 3; do destroy d 2>"$tmp/d$i" & done
		wait
		cat "$tmp"/d[123]
	done | sed 's/.*: //' | sort | uniq -c >"$tmp/destroys"
	is one_destroy_wins "16 $enoent" "$(sed 's/^ *//' "$tmp/destroys")"
}

test_unload() {
	create left key=8 value=8
	say left/control 'fill 0 10000'
	create over key=8 value=65536
	say over/control 'fill 0 20'
	check unload_destroys_maps rmmod chm
	check no_directory [ ! -e $chm ]
	check load_again insmod chm.ko
	is nothing_left control "$(ls $chm)"
}

for t in create update lookup tables rehash_at_max sizes kinds open_files walk interrupted \
	interrupted_moves create_fails races unload; do
	test_$t
done
rm -r "$tmp"
