#!/usr/bin/env bash
# The main job on a Cloud TPU slice, one host or many. Each verb is one step, and --dry-run prints its commands instead:
#
#   where=(--project=my-project --zone=us-west4-a --name=craft)
#   launch/tpu_vm.sh create "${where[@]}" --type=v5litepod-16 --runtime=v2-alpha-tpuv5-lite --spot
#   launch/tpu_vm.sh setup  "${where[@]}"
#   launch/tpu_vm.sh run    "${where[@]}" --bucket=gs://my-bucket/craft -- --config=demo
#   launch/tpu_vm.sh logs   "${where[@]}"
#   launch/tpu_vm.sh fetch  "${where[@]}" --bucket=gs://my-bucket/craft --to=runs/craft
#   launch/tpu_vm.sh delete "${where[@]}"
#
# create   makes the slice; it costs its chips x their hourly price from now until `delete`, whether it works or idles.
# setup    copies the commit that is checked out here to every host and installs it.
# run      starts the job on every host and returns; what runs there saves and stops first. A host that loses another
#          resumes by itself; after a reboot it takes `watch`, or another `run`.
#          With --bucket, host 0 keeps a copy of the workdir there, the only thing that outlives a spot slice.
#          With --data=gs://B/FOLDER every host copies the photographs from there, and they are data.root. Every host
#          needs them (demo brings its own): --data=gs://my-bucket/data -- --config=caltech
# watch    looks every minute, until the bucket holds result.json or the status of a host whose job ended with an error.
#          Starts the job where it does not run, and makes a preempted slice anew (delete, create, setup, run: this
#          costs again), at most --restarts (10) times; a setup or start that fails is tried as often. Ends too where
#          someone else deleted the slice, and after an hour in which it cannot be looked at. Takes what create and run
#          take. A host 0 that hangs or cannot write the bucket goes unnoticed: see `logs`.
# logs     streams a host's output (--worker=0).
# fetch    copies the workdir, from the bucket or from host 0, to --to.
# delete   deletes the slice, after asking; --yes does not ask. The bucket stays.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/tpu_vm.sh create|setup|run|watch|logs|fetch|delete --project=P --zone=Z --name=N [--dry-run] ...
  create: --type=T --runtime=R [--spot]   logs: [--worker=0]
  run: [--bucket=gs://B/FOLDER] [--data=gs://B/FOLDER] -- --config=FILE ...
  watch: what create and run take, [--restarts=10]   fetch: [--bucket=...] --to=FOLDER   delete: [--yes]"
verb="${1:-}"
[[ "$verb" =~ ^(create|setup|run|watch|logs|fetch|delete|--help)$ ]] || fail "a verb is missing; $usage"
[[ "$verb" != --help ]] || { echo "$usage" && exit 0; }
shift

project='' zone='' name='' type='' runtime='' bucket='' data='' to='' worker=0 restarts=10 spot=false yes=false
settings="project zone name type runtime bucket data to worker restarts" switches="spot yes"
read_arguments "$@"
bucket="${bucket%/}"
job=(${rest[@]+"${rest[@]}"})

needs project zone name
where=("--project=$project" "--zone=$zone")

tpu() {
  run gcloud compute tpus tpu-vm "$@" "${where[@]}"
}

on_hosts() { # WORKER COMMAND
  tpu ssh "$name" "--worker=$1" "--command=$2"
}

create() {
  needs type runtime
  local options=("--accelerator-type=$type" "--version=$runtime")
  [[ "$spot" == false ]] || options+=(--spot)
  tpu create "$name" "${options[@]}"
}

setup() {
  local archive root
  archive="$(cd "${TMPDIR:-/tmp}" && pwd)/craft_jax_$name.tar.gz" &&
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)" &&
    run git -C "$root" archive --format=tar.gz "--output=$archive" HEAD &&
    tpu scp "$archive" "$name:craft_jax.tar.gz" --worker=all &&
    on_hosts all "mkdir -p craft_jax && tar -xzf craft_jax.tar.gz -C craft_jax && cd craft_jax \
&& python3 -m pip install --user --quiet uv && python3 -m uv venv --quiet --allow-existing --python 3.11 .venv \
&& python3 -m uv pip install --quiet --python .venv/bin/python --editable . 'jax[tpu]'"
}

needs_job() {
  ((${#job[@]} > 0)) || fail "-- --config=FILE is missing for $verb; $usage"
  [[ " ${job[*]}" != *" --workdir"* ]] || fail "--workdir is the script's own: runs/$name on host 0"
}

start() {
  local arguments once="flock --nonblock --no-fork runs/$name.lock" # a host where the job runs already is left alone
  arguments="$(printf ' %q' "${bucket:-none}" "${data:-none}" "runs/$name" "${job[@]}")"
  on_hosts all "cd craft_jax && mkdir -p runs && { nohup setsid $once launch/tpu_host.sh$arguments \
>> ../$name.log 2>&1 < /dev/null & sleep 1; }"
}

# Stops what runs on the hosts, given two minutes to save, and takes away how it ended.
clear_hosts() {
  local lock="runs/$name.lock"
  on_hosts all "cd craft_jax && mkdir -p runs && if ! flock --nonblock $lock true; then kill -TERM \$(cat $lock); \
flock --timeout 120 $lock true || kill -KILL -- -\$(cat $lock); fi && rm -f runs/$name.ended" || return
  [[ -z "$bucket" ]] || run gcloud storage rm "$bucket/exit_status/*" 2>/dev/null || true
}

remove() {
  local options=()
  [[ "$1" == false ]] || options=(--quiet)
  tpu delete "$name" ${options[@]+"${options[@]}"}
}

# Puts the slice's state into state: what the cloud says, GONE where it knows none, UNKNOWN where it gave no answer.
look() {
  local problem="${TMPDIR:-/tmp}/craft_jax_$name.error"
  if ! state="$(tpu describe "$name" "--format=value(state)" 2>"$problem")"; then
    state=UNKNOWN
    if grep -q NOT_FOUND "$problem"; then state=GONE; else cat "$problem" >&2; fi
  fi
}

watch() {
  needs type runtime bucket
  needs_job
  if [[ "$dry_run" == true ]]; then
    echo "every minute, until $bucket/result.json is there:"
    run gcloud storage ls "$bucket/result.json"
    tpu describe "$name" "--format=value(state)"
    echo "where the slice is PREEMPTED or TERMINATED, at most $restarts times:"
    remove true && create && setup && start
    echo "where it is READY (a host where the job runs or has ended is left alone):"
    start
    echo "to see whether the job ended with an error:"
    run gcloud storage cat "$bucket/exit_status/*"
    return
  fi
  local made=0 tries=0 unknown=0 deleted=false installed=true state ended delete bills
  delete="launch/tpu_vm.sh delete ${where[*]} --name=$name"
  bills="the slice still runs and costs: $delete"
  until gcloud storage ls "$bucket/result.json" >/dev/null 2>&1; do
    look
    [[ "$state" == UNKNOWN ]] || unknown=0
    if [[ "$state" == UNKNOWN ]]; then
      unknown=$((unknown + 1))
      echo "$(date -u +%FT%TZ) $name could not be looked at ($unknown of 60)" >&2
      ((unknown < 60)) || fail "$name could not be looked at 60 times in a row; it may still run and cost: $delete"
    elif [[ "$state" == GONE && "$deleted" == false ]]; then
      fail "$name is not there: deleted by someone else, or never made"
    elif [[ "$state" =~ ^(PREEMPTED|TERMINATED|GONE)$ ]]; then
      ((made < restarts)) || fail "$name is $state after $made restarts; the bucket holds what it reached"
      made=$((made + 1))
      echo "$(date -u +%FT%TZ) $name is $state: making it anew ($made of $restarts)" >&2
      [[ "$state" == GONE ]] || remove true || true
      deleted=true installed=false tries=0
      # No capacity, or preempted again before it ran: look again in a minute.
      if create; then state=READY deleted=false; else echo "$name could not be made" >&2; fi
    else
      deleted=false
    fi
    if [[ "$state" == READY ]]; then
      if { [[ "$installed" == true ]] || setup; } && start; then
        installed=true tries=0
      else
        tries=$((tries + 1))
        echo "$name could not be set up or started (try $tries)" >&2
        ((tries < restarts)) || fail "given up after $tries tries to set up and run; $bills"
      fi
    fi
    sleep 60
    if ended="$(gcloud storage cat "$bucket/exit_status/*" 2>/dev/null)"; then
      fail "the job ended with an error (${ended//$'\n'/, }; see launch/tpu_vm.sh logs --worker=HOST); $bills"
    fi
  done
  echo "finished: $bucket/result.json; $bills"
}

case "$verb" in
  create) create ;;
  setup) setup ;;
  run) needs_job && clear_hosts && start ;;
  watch) watch ;;
  logs) on_hosts "$worker" "tail -n 100 -F $name.log" ;;
  fetch)
    needs to
    run mkdir -p "$to"
    if [[ -n "$bucket" ]]; then
      run gcloud storage rsync --recursive "$bucket" "$to"
    else
      tpu scp "$name:craft_jax/runs/$name/*" "$to" --worker=0 --recurse
    fi
    ;;
  delete) remove "$yes" ;;
esac
