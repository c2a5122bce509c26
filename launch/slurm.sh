#!/usr/bin/env bash
# The main job on SLURM nodes, one process a GPU (or a node, on CPUs); requeued and resumed when it is preempted:
#
#   launch/slurm.sh --nodes=2 --gpus_per_node=4 --time=02:00:00 --partition=gpu -- \
#       --config=configs/caltech.py --workdir=/shared/runs/caltech
#
# Needed: --nodes, --gpus_per_node (0 for CPUs), --time. Also --partition, --account, --name (craft_jax), --venv (.venv):
# the environment on a file system that every node sees. What follows -- goes to craft_jax.main; its --workdir must
# outlive the job. --dry-run prints the batch script and the command instead.
# SLURM sends SIGTERM 120 s before the time is up or at preemption: the job saves, exits with 75 and is requeued.
# Costs nodes x gpus_per_node GPUs for at most --time, and for as long again whenever it is requeued: --requeues (100)
# bounds how often it asks for that (SLURM's own requeues count, but are SLURM's to bound).
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/slurm.sh --nodes=N --gpus_per_node=N --time=HH:MM:SS [--partition=P] [--account=A] [--name=craft_jax]
  [--venv=.venv] [--requeues=100] [--dry-run] -- --config=FILE --workdir=FOLDER ..."
nodes='' gpus_per_node='' time='' partition='' account='' name=craft_jax venv=.venv requeues=100
settings="nodes gpus_per_node time partition account name venv requeues"
read_arguments "$@"
[[ "$nodes" =~ ^[1-9][0-9]*$ ]] || fail "--nodes=N is missing or no number; $usage"
[[ "$gpus_per_node" =~ ^[0-9]+$ ]] || fail "--gpus_per_node=N is missing or no number; $usage"
[[ "$requeues" =~ ^[0-9]+$ ]] || fail "--requeues=$requeues must be a number; $usage"
[[ -n "$time" ]] || fail "--time=HH:MM:SS is missing; $usage"
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "-- --workdir=FOLDER is missing: it must be a folder that outlives the job"

job="$(printf ' %q' "$venv/bin/python" -m craft_jax.main ${rest[@]+"${rest[@]}"})"
script="#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$((gpus_per_node > 0 ? gpus_per_node : 1))
#SBATCH --time=$time
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name-%j.log
#SBATCH --signal=B:TERM@120"
((gpus_per_node == 0)) || script+="
#SBATCH --gpus-per-node=$gpus_per_node"
[[ -z "$partition" ]] || script+="
#SBATCH --partition=$partition"
[[ -z "$account" ]] || script+="
#SBATCH --account=$account"
script+="
set -uo pipefail
# The signal reaches this script alone, which hands it to every task.
srun --kill-on-bad-exit=0 --label$job &
step=\$!
trap 'scancel --signal=TERM \"\$SLURM_JOB_ID.0\"' TERM
wait \"\$step\"; status=\$?
while kill -0 \"\$step\" 2>/dev/null; do wait \"\$step\"; status=\$?; done
if ((status == 75 || status == 134)); then
  if ((\${SLURM_RESTART_COUNT:-0} < $requeues)); then
    scontrol requeue \"\$SLURM_JOB_ID\"
  else
    echo \"stopped with status \$status after $requeues requeues\" >&2
  fi
fi
exit \"\$status\""

if [[ "$dry_run" == true ]]; then
  echo "$script"
  echo "+ sbatch < (the script above)"
else
  sbatch <<<"$script"
fi
