#!/usr/bin/env bash
# A real Slurm of one node with two fake GPUs, from Debian's packages, for the tests: also in a container without systemd.
#   cluster.sh install   apt-get install what is missing: Slurm, munge, and PostgreSQL for the tests of MLflow's server
#   cluster.sh start     start what is not running; does nothing to a cluster that is up
#   cluster.sh slurmd    start the node's daemon again after it was killed
#   cluster.sh stop      end jobs and daemons, remove the configuration
# Exit status 3: this machine cannot have one (the reason is on stderr). Needs root, or sudo without a password.
set -euo pipefail

STATE=/var/lib/rmt-bench-slurm # daemons' spool and logs
CONF=/etc/slurm                # not elsewhere by SLURM_CONF: the plugin takes SLURM_* from a job's environment
MARK="# written by RMT-Bench's tests/workflow/slurm/cluster.sh"
NODE=$(uname -n | cut -d. -f1)
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

fail() {
    echo "error: Slurm: $*" >&2
    exit 3
}

if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || fail "this needs root or sudo without a password"
    exec sudo -n "$0" "$@"
fi

missing() { ! command -v slurmctld slurmd munged sbatch srun squeue >/dev/null; }
ours() { head -n 1 "$CONF/slurm.conf" 2>/dev/null | grep -qxF "$MARK"; }
node_state() { timeout 5 sinfo --noheader --nodes="$NODE" --partition=gpu --format=%T 2>/dev/null; }
alive() { # a daemon by its pid file; in a container without an init the dead may stay as zombies
    local pid
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) && grep -qE '^State:\s+[^ZX]' "/proc/$pid/status" 2>/dev/null
}
is_up() { alive slurmctld && alive slurmd && node_state | grep -qE '^(idle|mixed|allocated|completing)$'; }

install_packages() {
    if ! missing && command -v pg_ctlcluster >/dev/null; then return; fi
    command -v apt-get >/dev/null || fail "neither installed nor installable: no apt-get here"
    # A new slurmctld would look for a configuration that is written later; munge's own start may fail without systemd.
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge postgresql) \
        >/tmp/rmt-bench-slurm-apt.log 2>&1 || true
    ! missing || fail "apt-get install slurmctld slurmd slurm-client munge failed: $(tail -n 1 /tmp/rmt-bench-slurm-apt.log)"
}

configure() {
    local cpus memory
    cpus=$(nproc)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    mkdir -p "$CONF" "$STATE"/{controller,node}
    # Memory is enforced by Slurm's own measurements, because a container has no cgroup of its own to write in.
    # cred_expire is how long a requeued job waits; KillWait is how long SIGTERM comes before SIGKILL.
    cat >"$CONF/slurm.conf" <<END
$MARK
ClusterName=rmtbench
SlurmctldHost=$NODE(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$STATE/controller
SlurmdSpoolDir=$STATE/node
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmdTimeout=15
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_min_interval=100000,sched_interval=5,bf_interval=5,batch_sched_delay=0
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$((cpus > 4 ? cpus : 4)) RealMemory=$memory Gres=gpu:2
PartitionName=gpu Nodes=$NODE Default=YES MaxTime=600 PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=$NODE MaxTime=600 PriorityTier=9 PreemptMode=off
END
    echo "NodeName=$NODE Name=gpu File=/dev/null,/dev/zero" >"$CONF/gres.conf"
}

start_munge() {
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return 0
    [ -s /etc/munge/munge.key ] || mungekey >/dev/null 2>&1 || fail "no munge key could be made"
    install -d -o munge -g munge -m 0755 /run/munge /var/log/munge
    chown -R munge:munge /etc/munge /var/lib/munge
    runuser -u munge -- munged >/dev/null 2>&1 || true
    munge -n | unmunge >/dev/null || fail "munged does not run"
}

start() {
    ! missing || fail "not installed; $0 install does it"
    if [ -e "$CONF/slurm.conf" ] && ! ours; then
        fail "$CONF/slurm.conf is not this script's; the tests do not touch another Slurm"
    fi
    if is_up; then
        echo "already up"
        return
    fi
    start_munge
    configure
    alive slurmctld || slurmctld -c || fail "slurmctld: $(tail -n 1 "$STATE/slurmctld.log")"
    start_slurmd
}

start_slurmd() {
    alive slurmd || slurmd || fail "slurmd: $(tail -n 1 "$STATE/slurmd.log")"
    for _ in $(seq 60); do
        if is_up; then return; fi
        sleep 0.5
    done
    fail "the node does not come up: $(node_state); logs in $STATE"
}

stop() {
    ours || return 0
    if is_up; then
        for partition in gpu urgent; do timeout 10 scancel --partition="$partition" 2>/dev/null || true; done
        for _ in $(seq 50); do
            [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
            sleep 0.5
        done
    fi
    for name in slurmd slurmctld; do
        if alive "$name"; then kill "$(cat "$STATE/$name.pid")"; fi
        for _ in $(seq 20); do
            if alive "$name"; then sleep 0.5; fi
        done
    done
    rm -rf "$CONF/slurm.conf" "$CONF/gres.conf" "$STATE"
}

case ${1:-} in
    install) install_packages ;;
    start) start ;;
    slurmd) ours && start_slurmd ;;
    stop) stop ;;
    *) sed -n '2,7s/^# \?//p' "$0" >&2 && exit 2 ;;
esac
