# lib.sh: what the scripts here share. Sourced, never run.
# shellcheck shell=bash

# Go would write the state of the git tree into programs: it makes equal builds
# differ, and fails where git does not trust the folder's owner.
case ${GOFLAGS:-} in
*-buildvcs=false*) ;;
*) export GOFLAGS="${GOFLAGS:+$GOFLAGS }-buildvcs=false" ;;
esac

# shellcheck source=tools/build.sh
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

# die TEXT: say what is wrong and what to do, and leave with 1.
die() {
	printf 'error: %s\n' "$1" >&2
	exit 1
}

# need PROGRAM HINT: leave with a clear text when a program is not there.
need() {
	type -P "$1" >/dev/null || die "$1 is missing. $2"
}

# cache_dir: where what was fetched and built is kept, outside every checkout.
cache_dir() {
	if [ -n "${MSRCHAT_CACHE:-}" ]; then
		echo "$MSRCHAT_CACHE"
	elif [ -n "${XDG_CACHE_HOME:-}" ]; then
		echo "$XDG_CACHE_HOME/msrchat"
	elif [ -n "${HOME:-}" ]; then
		echo "$HOME/.cache/msrchat"
	else
		die "HOME is not set: set MSRCHAT_CACHE to a folder for fetched and built tools."
	fi
}

# version_at_least HAVE WANT: compare dotted numbers.
version_at_least() {
	[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# with_lock FILE COMMAND...: run it while no other process holds FILE. The
# kernel drops the lock with the process, so a killed build blocks nobody.
# Without flock (macOS) two clones may build the same thing twice: wasteful,
# still right, because what is built is renamed into place.
with_lock() {
	local file=$1 start=$SECONDS fd
	shift
	if ! type -P flock >/dev/null; then
		"$@"
		return
	fi
	exec {fd}>"$file"
	until flock -w 10 "$fd"; do
		echo "  waiting for another process that is making it (${file##*/}) … $((SECONDS - start)) s" >&2
	done
	"$@" || {
		local code=$?
		exec {fd}>&-
		return "$code"
	}
	exec {fd}>&-
}

# with_progress [-q] TEXT COMMAND...: run it with a line at the start, one every
# ten seconds and one at the end; with -q only those every ten seconds. Its output
# is shown only when it fails.
with_progress() {
	local quiet='' text start=$SECONDS output pid code=0 next=10
	if [ "$1" = -q ]; then
		quiet=yes
		shift
	fi
	text=$1
	shift
	output=$(mktemp)
	[ -n "$quiet" ] || echo "  $text" >&2
	"$@" >"$output" 2>&1 &
	pid=$!
	# Ctrl-C reaches the child as well (same process group); here only the
	# temporary file is left to remove.
	trap 'kill "$pid" 2>/dev/null || true; rm -f "$output"; exit 130' INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.1
		if [ $((SECONDS - start)) -ge $next ]; then
			echo "  ${quiet:+$text }… $next s" >&2
			next=$((next + 10))
		fi
	done
	wait "$pid" || code=$?
	trap - INT TERM
	if [ "$code" -ne 0 ]; then
		cat "$output" >&2
	elif [ -z "$quiet" ]; then
		echo "  done in $((SECONDS - start)) s" >&2
	fi
	rm -f "$output"
	return "$code"
}

# state_dir: the local fleet's folder. $root is the checkout.
state_dir() {
	echo "${MSRCHAT_STATE:-${root:?}/.fleet}"
}

# modules: the folders of the workspace's modules, below $root, e2e last.
modules() {
	(cd "${root:?}" && go list -m -f '{{.Dir}}') | sed "s|^$root/||" | sort |
		awk '$0 == "e2e" { last = $0; next } { print } END { if (last) print last }'
}

# go_files: the hand-written Go files of the working directory, each ended by NUL.
go_files() {
	find . -name .fleet -prune -o -name .git -prune -o -name '*.go' ! -name '*.pb.go' -print0
}

# stage NAME COMMAND...: run it, and remember its name, result and time. A 77 from
# the command means: not run, for the reason that it printed.
stage() {
	local name=$1 start=$SECONDS code result=ok
	shift
	printf '== %s\n' "$name"
	set +e # in an "or" list bash would ignore the inner set -e
	(
		set -e
		"$@"
	)
	code=$?
	set -e
	case $code in
	0) ;;
	77) result='not run' ;;
	130 | 143) exit "$code" ;;
	*)
		result=FAILED
		stages_failed=1
		;;
	esac
	stages_table+=$(printf '%-28s %-8s %4d s' "$name" "$result" $((SECONDS - start)))$'\n'
}
stages_failed=0
stages_table=''

# not_run REASON: for the command of a stage.
not_run() {
	echo "not run: $1"
	exit 77
}

# show_flaky: print the flaky tests that were listed, after an empty line.
show_flaky() {
	if [ -s "${MSRCHAT_FLAKY_LIST:-}" ]; then
		echo
		cat "$MSRCHAT_FLAKY_LIST"
	fi
}

# end_stages: print what stage remembered and the flaky tests, and leave with 1
# when a stage failed.
end_stages() {
	printf '\n%s' "$stages_table"
	printf '%-28s %-8s %4d s\n' total "$([ "$stages_failed" = 0 ] && echo ok || echo FAILED)" "$SECONDS"
	show_flaky
	exit "$stages_failed"
}
