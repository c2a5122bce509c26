#!/usr/bin/env bash
# The main job on SLURM nodes, one process a GPU (or a node, on CPUs); requeued and resumed when it is preempted:
#
#   launch/slurm.sh --nodes=2 --gpus_per_node=4 --cpus_per_task=8 --time=02:00:00 --partition=gpu -- \
#       --config=demo --workdir=/shared/runs/demo
#
# Needed: --nodes, --gpus_per_node (0 for CPUs), --time. Also --cpus_per_task (to decode images; most sites give 1 where
# it is missing), --partition, --account, --name (craft_jax), --venv (.venv): the environment. It, this folder and the
# photographs (--config.data.root) must be where every node sees them. What follows -- goes to craft-jax tune; its
# --workdir must outlive the job. --dry-run prints the batch script and the command instead.
# SLURM sends SIGTERM 120 s before the time is up: the job saves, exits with 75 and is requeued. At preemption the
# notice is the partition's GraceTime instead (none: the run resumes from its last checkpoint), given to the tasks
# unless SlurmctldParameters has preempt_send_user_signal. A job whose task was killed or lost another is requeued too;
# where a task failed for good, its status is in fatal.JOBID, in the folder of the call, and nothing is requeued.
# Costs nodes x gpus_per_node GPUs for at most --time, and for as long again whenever it is requeued: --requeues (100)
# bounds how often it asks for that (SLURM's own requeues count, but are SLURM's to bound).
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/slurm.sh --nodes=N --gpus_per_node=N --time=HH:MM:SS [--cpus_per_task=N] [--partition=P]
  [--account=A] [--name=craft_jax] [--venv=.venv] [--requeues=100] [--dry-run] -- --config=FILE --workdir=FOLDER ..."
nodes='' gpus_per_node='' cpus_per_task='' time='' partition='' account='' name=craft_jax venv=.venv requeues=100
settings="nodes gpus_per_node cpus_per_task time partition account name venv requeues"
read_arguments "$@"
[[ "$nodes" =~ ^[1-9][0-9]*$ ]] || fail "--nodes=N is missing or no number; $usage"
[[ "$gpus_per_node" =~ ^[0-9]+$ ]] || fail "--gpus_per_node=N is missing or no number; $usage"
[[ "$cpus_per_task" =~ ^([1-9][0-9]*)?$ ]] || fail "--cpus_per_task=$cpus_per_task must be a number; $usage"
[[ "$requeues" =~ ^[0-9]+$ ]] || fail "--requeues=$requeues must be a number; $usage"
[[ -n "$time" ]] || fail "--time=HH:MM:SS is missing; $usage"
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "-- --workdir=FOLDER is missing: it must be a folder that outlives the job"

task="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/slurm_task.sh"
options=(--kill-on-bad-exit=0 --label)
[[ -z "$cpus_per_task" ]] || options+=("--cpus-per-task=$cpus_per_task") # srun does not take it from the batch script
step="$(printf ' %q' "${options[@]}" "$task")"
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
[[ -z "$cpus_per_task" ]] || script+="
#SBATCH --cpus-per-task=$cpus_per_task"
[[ -z "$partition" ]] || script+="
#SBATCH --partition=$partition"
[[ -z "$account" ]] || script+="
#SBATCH --account=$account"
script+="
set -uo pipefail
fatal=\"fatal.\$SLURM_JOB_ID\"
rm -f \"\$fatal\"
# The signal reaches this script alone, which hands it to every task.
srun$step \"\$fatal\"$job &
step=\$!
trap 'scancel --signal=TERM \"\$SLURM_JOB_ID.0\"' TERM
wait \"\$step\"; status=\$?
while kill -0 \"\$step\" 2>/dev/null; do wait \"\$step\"; status=\$?; done
wait \"\$step\"; status=\$? # once more: where it ended while the trap ran, the wait before told of the signal
# The highest status of all tasks: a crash (1) hides behind what it does to the others.
if [[ -e \"\$fatal\" ]]; then
  echo \"not requeued: \$(<\"\$fatal\")\" >&2
elif ((status == 75 || status == 134 || status == 137 || status == 143)); then
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
