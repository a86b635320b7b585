# build.sh: how the scripts here build Go programs, and what people see meanwhile.
# Sourced by lib.sh, never run.
# shellcheck shell=bash

# build_program PACKAGE...: compile programs of the checkout and print the path of the
# first. When nothing changed since, go is not even asked. The flags are those of the
# fleet's own builds: with others the linker would run each time.
build_program() {
	local folder
	folder=$(state_dir)/build
	mkdir -p "$folder"
	if ! unchanged "$folder" "$@"; then
		# Two terminals may want it at once. A failure has to be returned: in $(…) bash goes on.
		with_lock "$folder/lock" build_changed "$folder" "$@" || return 1
	fi
	echo "$folder/${1##*/}"
}

build_changed() {
	local folder=$1 before began package program text="building ${2##*/}"
	shift
	[ $# -eq 1 ] || text="building $# programs"
	unchanged "$folder" "$@" && return 0
	# What is written down was true before the build, so that a change meanwhile shows.
	before=$(sources) || before=''
	began=$(date +%s)
	compile "$text" "${root:?}" "$folder/" "${@/#/./}" || return 1
	for package in "$@"; do
		program=$folder/${package##*/}
		rm -f "$program.sources"
		# A file may change twice within one tick of its clock: the last change has to be
		# a second ago.
		if [ -n "$before" ] && awk -v began="$began" '/^[0-9]/ && $1 > began - 1 { exit 1 }' <<<"$before"; then
			printf '%s\n%s\n' "$before" "$(identity "$program")" >"$program.sources"
		fi
	done
}

# unchanged FOLDER PACKAGE...: whether the programs are what their sources would be
# built to.
unchanged() {
	local folder=$1 now package program
	shift
	now=$(sources) || return 1
	for package in "$@"; do
		program=$folder/${package##*/}
		[ -x "$program" ] && printf '%s\n%s\n' "$now" "$(identity "$program")" |
			cmp -s - "$program.sources" 2>/dev/null || return 1
	done
}

# sources: all that a build may depend on: every file of the checkout, the compiler,
# and Go's settings. A file is the time of its last change (ctime), which, unlike its
# modification time, nobody can set back, its inode, size and name. Fails where find
# cannot print them (not GNU's).
sources() {
	local state
	cd "${root:?}" || return 1
	state=$(state_dir)
	find . \( -name .git -o -name '.fleet*' -o -name .terraform -o -path "./${state#"$PWD/"}" \) -prune \
		-o -type f -printf '%C@ %i %s %p\n' 2>/dev/null | sort -k 4 || return 1
	identity "$(type -P go)"
	identity "${GOENV:-${XDG_CONFIG_HOME:-${HOME:-}/.config}/go/env}"
	env | grep -E '^(GO|CGO|CC=|CXX=|PKG_CONFIG)' | sort || true
}

# identity FILE: of a file that may be a link, nothing if it is not there.
identity() { find -L "$1" -maxdepth 0 -printf '%C@ %i %s %p\n' 2>/dev/null || true; }

# compile TEXT FOLDER OUTPUT PACKAGE...: go build in a folder. While it takes long it
# shows how many of the packages that are not in Go's cache are done, and an estimate of
# the rest: on a terminal in one line, elsewhere every ten seconds. What go prints is
# shown only when it fails.
compile() {
	local text=$1 folder=$2 output=$3 work code=0 start=$SECONDS
	shift 3
	work=$(mktemp -d)
	trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"; exit 130' INT TERM
	: >"$work/weights"
	watched "$text" "$work" downloads stale "$folder" "$work" "$@" &&
		watched "$text" "$work" packages go build -C "$folder" -v -trimpath -buildvcs=false -o "$output" "$@" || code=$?
	trap - INT TERM
	if [ "$code" -ne 0 ]; then
		awk -F '\t' 'FILENAME == ARGV[1] { names[$2]; next } !($0 in names) && !/^go: downloading /' \
			"$work/weights" "$work/output" >&2
	elif [ $((SECONDS - start)) -ge 2 ]; then
		echo "  $text: done in $((SECONDS - start)) s" >&2
	fi
	rm -rf "$work"
	return "$code"
}

# stale FOLDER WORK PACKAGE...: writes WORK/weights, the size and name of each package
# that has to be compiled. Only go knows: it downloads the modules for this.
stale() {
	local folder=$1 work=$2
	shift 2
	go list -C "$folder" -deps -trimpath -buildvcs=false -f \
		'{{if and .Stale (ne .StaleReason "not installed but available in build cache")}}{{range .GoFiles}}{{$.ImportPath}}{{"\t"}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}' \
		"$@" | grep . >"$work/files" || [ "${PIPESTATUS[0]}" -eq 0 ] || return 1
	cut -f 2 "$work/files" | tr '\n' '\0' | xargs -0 -r wc -c >"$work/sizes"
	# 20,000 for a package: what starting the compiler costs, in bytes of source.
	awk -F '\t' 'NR == FNR { sub(/^ +/, ""); at = index($0, " "); size[substr($0, at + 1)] = substr($0, 1, at - 1); next }
		{ weight[$1] += size[$2] } END { for (name in weight) print weight[name] + 20000 "\t" name }' \
		"$work/sizes" "$work/files" >"$work/weights"
}

# watched TEXT WORK WHAT COMMAND...: runs it with its output in WORK/output, and shows
# what that says about WHAT (downloads or packages).
watched() {
	local text=$1 work=$2 what=$3 start=$SECONDS shown='' pid code=0 next=10 line
	shift 3
	"$@" >"$work/output" 2>&1 &
	pid=$!
	echo "$pid" >"$work/pid"
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		if [ -t 2 ] && [ $((SECONDS - start)) -ge 1 ]; then
			line=$("$what" "$work" $((SECONDS - start)))
			printf '\r\033[K  %s: %s' "$text" "$line" >&2
			shown=yes
		elif [ ! -t 2 ] && [ $((SECONDS - start)) -ge $next ]; then
			echo "  $text: $("$what" "$work" $((SECONDS - start)))" >&2
			next=$((next + 10))
		fi
	done
	[ -z "$shown" ] || printf '\r\033[K' >&2
	wait "$pid" || code=$?
	return "$code"
}

# downloads WORK SECONDS
downloads() {
	echo "fetching modules, $(grep -c '^go: downloading ' "$1/output") so far, $2 s"
}

# packages WORK SECONDS: go names a package when it begins to compile it. Those that are
# being compiled are its children; where ps does not tell, they count as done.
packages() {
	{
		cat "$1/output"
		ps -o args= --ppid "$(cat "$1/pid")" 2>/dev/null | sed -n 's/.* -p \([^ ]*\) .*/running\t\1/p'
	} | awk -F '\t' -v took="$2" '
		NR == FNR { weight[$2] = $1; all += $1; count++; next }
		$1 == "running" { if ($2 in began) { done -= began[$2]; n-- }; next }
		$1 in weight { began[$1] = weight[$1]; done += weight[$1]; n++; delete weight[$1] }
		END {
			if (n == count) rest = "linking"
			else if (took < 5 || done < all / 50) rest = "no estimate yet"
			else {
				left = took * (all - done) / done
				rest = left < 90 ? sprintf("about %d s left", 10 * int(left / 10 + 1)) \
					: sprintf("about %d min left", int(left / 60 + 0.5))
			}
			printf "%d of %d packages, %d s, %s\n", n, count, took, rest
		}' "$1/weights" -
}
