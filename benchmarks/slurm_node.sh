#!/usr/bin/env bash
# A Slurm of one node on this machine, to try `hydra/launcher=submitit_slurm` without a cluster. It needs root, and on Debian
#     apt-get install --no-install-recommends slurmctld slurmd slurm-client munge slurmdbd mariadb-server
#
#     benchmarks/slurm_node.sh start DIR    # prints the line that lets programs find it
#     benchmarks/slurm_node.sh stop DIR
#
# Keys, configuration, logs and state lie in DIR alone.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
PROGRAMS="munged slurmctld slurmd sbatch slurmdbd sacct mariadbd mariadb-install-db"
DAEMONS="slurmd slurmctld slurmdbd mariadbd munged"

fail() { echo "error: $*" >&2; exit 2; }
[ $# = 2 ] || fail "usage: $0 start DIR | stop DIR"
mkdir -p "$2" && dir=$(cd "$2" && pwd) && export SLURM_CONF=$dir/slurm.conf

running() { kill -0 "$(cat "$dir/$1.pid" 2>/dev/null)" 2>/dev/null; }

wait_for() { # WHAT COMMAND...
  for ((end = SECONDS + 30; SECONDS < end; )); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.1; done
  fail "$1 does not answer: see the logs in $dir"
}

free_ports() {
  python3 -c 'import socket, sys
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in servers))' "$1"
}

is_idle() { [ -n "$(sinfo -h -t idle)" ]; }

start() {
  for program in $PROGRAMS; do
    command -v "$program" >/dev/null || fail "no $program: apt-get install the packages that $0 names"
  done
  [ "$(id -u)" = 0 ] || fail "Slurm's daemons start as root only"
  ! running slurmctld || fail "$dir: runs already"
  host=$(hostname -s)
  read -r ctld_port slurmd_port dbd_port sql_port < <(free_ports 4)
  chmod 755 "$dir" && mkdir -p "$dir/state" "$dir/spool"

  (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munge.log" --seed-file="$dir/munge.seed"

  mariadb-install-db --no-defaults --user=root --datadir="$dir/sql" --auth-root-authentication-method=socket >"$dir/sql.log" 2>&1
  password=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
  setsid mariadbd --no-defaults --user=root --datadir="$dir/sql" --socket="$dir/sql.socket" --pid-file="$dir/mariadbd.pid" \
    --bind-address=127.0.0.1 --port="$sql_port" >>"$dir/sql.log" 2>&1 </dev/null &
  wait_for mariadbd mariadb --no-defaults --socket="$dir/sql.socket" \
    -e "CREATE OR REPLACE USER slurm@localhost IDENTIFIED BY '$password'; GRANT ALL ON slurm.* TO slurm@localhost"
  (umask 077 && cat >"$dir/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
PidFile=$dir/slurmdbd.pid
LogFile=$dir/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$sql_port
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm
CONF
  cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=root
AuthInfo=socket=$dir/munge.socket
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
AccountingStoragePass=$dir/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all)
PartitionName=all Nodes=$host Default=YES State=UP
CONF
  slurmdbd
  wait_for slurmdbd sacctmgr -in add cluster one
  slurmctld
  slurmd
  wait_for slurmd is_idle
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
  ! running slurmctld || scancel --user=root || true
  for daemon in $DAEMONS; do
    if running $daemon; then kill "$(cat "$dir/$daemon.pid")"; fi
    for _ in $(seq 300); do running $daemon || break; sleep 0.1; done
    ! running $daemon || fail "$daemon does not end"
  done
}

case $1 in
  start | stop) $1 ;;
  *) fail "usage: $0 start DIR | stop DIR" ;;
esac
