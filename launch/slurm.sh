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
# Costs nodes x gpus_per_node GPUs for at most --time, and for as long again whenever it is requeued.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/slurm.sh --nodes=N --gpus_per_node=N --time=HH:MM:SS [--partition=P] [--account=A] [--name=craft_jax]
  [--venv=.venv] [--dry-run] -- --config=FILE --workdir=FOLDER ..."
nodes='' gpus='' limit='' partition='' account='' name=craft_jax venv=.venv
while (($#)); do
  case "$1" in
    --nodes=*) nodes="${1#*=}" ;;
    --gpus_per_node=*) gpus="${1#*=}" ;;
    --time=*) limit="${1#*=}" ;;
    --partition=*) partition="${1#*=}" ;;
    --account=*) account="${1#*=}" ;;
    --name=*) name="${1#*=}" ;;
    --venv=*) venv="${1#*=}" ;;
    --dry-run) dry_run=true ;;
    --help) echo "$usage" && exit 0 ;;
    --) shift && break ;;
    *) fail "unknown argument $1; $usage" ;;
  esac
  shift
done
[[ "$nodes" =~ ^[1-9][0-9]*$ ]] || fail "--nodes=N is missing or no number; $usage"
[[ "$gpus" =~ ^[0-9]+$ ]] || fail "--gpus_per_node=N is missing or no number; $usage"
[[ -n "$limit" ]] || fail "--time=HH:MM:SS is missing; $usage"
[[ " $* " == *" --workdir="* ]] || fail "-- --workdir=FOLDER is missing: it must be a folder that outlives the job"

job="$(printf ' %q' "$venv/bin/python" -m craft_jax.main "$@")"
script="#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$((gpus > 0 ? gpus : 1))
#SBATCH --time=$limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name-%j.log
#SBATCH --signal=B:TERM@120"
((gpus == 0)) || script+="
#SBATCH --gpus-per-node=$gpus"
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
if ((status == 75 || status == 134)); then scontrol requeue \"\$SLURM_JOB_ID\"; fi
exit \"\$status\""

if [[ "$dry_run" == true ]]; then
  echo "$script"
  echo "+ sbatch < (the script above)"
else
  sbatch <<<"$script"
fi
