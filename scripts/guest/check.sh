# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# In every guest: . ./check.sh

# check NAME COMMAND...: report for scripts/judge whether COMMAND succeeds
check() {
	check_name=$1
	shift
	if "$@"; then
		echo "CHECK ok $check_name"
	else
		echo "CHECK FAIL $check_name: exit status $?"
	fi
}
