# The verbs of the project. ./justw runs them, also where just is not installed:
#   ./justw            lists them
#   ./justw up         starts everything on this machine
# A recipe of more than a few lines is a script in tools/.

set positional-arguments := true

# list the recipes
[private]
default:
    @'{{ just_executable() }}' --justfile '{{ justfile() }}' --list --unsorted

# a first look: the whole system in one process, without Consul and Nomad, until Ctrl-C
[no-exit-message]
try *ARGS:
    @tools/try "$@"

# start the local fleet (SERVICE... or all of it) and wait until every check passes; repeat at will
[no-exit-message]
up *ARGS:
    @tools/fleet up "$@"

# stop the local fleet; --purge removes its data too
[no-exit-message]
down *ARGS:
    @tools/fleet down "$@"

# bring SERVICE (chat, gate, status) to VERSION (a git ref, a folder, or the working tree); see --help
[no-exit-message]
upgrade *ARGS:
    @tools/fleet upgrade "$@"

# the same fleet by Terraform (ENV: local): plan, make and wait until every check passes
[no-exit-message]
apply *ENV:
    @terraform/run apply "$@"

# show what apply would change (ENV: local); exits with 0 for nothing, 2 for something, 1 for failed
[no-exit-message]
plan *ENV:
    @terraform/run plan "$@"

# take down what apply made (ENV: local); the databases' files stay
[no-exit-message]
destroy *ENV:
    @terraform/run destroy "$@"

# show services, addresses and checks
[no-exit-message]
ps:
    @tools/fleet ps

# show the logs of SERVICE's instances (or of consul, nomad); --follow to go on
[no-exit-message]
logs *ARGS:
    @tools/fleet logs "$@"

# check this machine and the fleet, up or down, and say what to do (--json); exits with 1 when a check failed
[no-exit-message]
doctor *ARGS:
    @tools/fleet doctor "$@"

# show the newest mail to ADDRESS
[no-exit-message]
mail *ADDRESS:
    @tools/fleet mail "$@"

# print shell lines that point nomad, consul and msrchat at the local fleet: eval "$(./justw env)"
[no-exit-message]
env:
    @tools/fleet env

# build (if anything changed) and run msrchat, the terminal program and its commands: ./justw chat --help
[no-exit-message]
chat *ARGS:
    @tools/chat "$@"

# measure the local fleet: load, idle, storm or assign, with --help for more
[no-exit-message]
bench *ARGS:
    @tools/bench "$@"

# vet and test modules (MODULE... or all of them, end-to-end last), with the race detector
[no-exit-message]
test *MODULES:
    @tools/test "$@"

# kill, freeze and cut everything while people talk, and prove that nothing is lost: ./justw faults --help
[no-exit-message]
faults *ARGS:
    @tools/faults "$@"

# the tests on a Redis Cluster and a MariaDB Galera cluster, and both harmed while people talk (suites, faults [N])
[no-exit-message]
engines *ARGS:
    @tools/engines "$@"

# send everything outside valid, odd and hostile requests, and see that nothing odd comes out: ./justw fuzz --help
[no-exit-message]
fuzz *ARGS:
    @tools/fuzz "$@"

# crash, cut off and drain nodes of a fleet on four network namespaces while people talk; prints a table (ARG... for go test)
[no-exit-message]
nodes *ARGS:
    @tools/node-faults "$@"

# watch two people chat while everything is killed, and the verdict: ./justw chaos-demo --help
[no-exit-message]
chaos-demo *ARGS:
    @tools/chaos-demo "$@"

# look for what a reviewer should not have to say
[no-exit-message]
lint:
    @tools/lint

# generate code from proto/
[no-exit-message]
gen:
    @tools/gen

# format everything that a tool can format
[no-exit-message]
fmt:
    @tools/fmt
