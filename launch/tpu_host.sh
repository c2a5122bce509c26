#!/usr/bin/env bash
# What tpu_vm.sh runs on every host of a slice: the main job, resumed while it can be, and on host 0 a copy of the
# workdir in a bucket every minute. With DATA it first copies the photographs to the folder data, which is data.root
# unless the arguments have another.
#
#   launch/tpu_host.sh gs://BUCKET/FOLDER|none gs://DATA|none WORKDIR --config=FILE ...
#
# A job that ended and was not told to leaves its status in WORKDIR.ended, and is not started again while that is there;
# one that ended with an error leaves it in the bucket too, as exit_status/HOST. WORKDIR.lock, which is held while this
# runs, says which process that is.
# --dry-run as the first argument prints the commands instead. HOST_NUMBER overrides what the machine says it is.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($# >= 4)) \
  || fail "usage: launch/tpu_host.sh [--dry-run] gs://BUCKET/FOLDER|none gs://DATA|none WORKDIR --config=FILE ..."
bucket="$1" data="$2" workdir="${3%/}"
shift 3

number="${HOST_NUMBER:-}" stopped=false

# shellcheck disable=SC2317,SC2329  # the trap calls it
report() {
  local ended=$?
  [[ "$stopped" == false ]] || return 0
  echo "host ${number:-unknown}: status $ended" >"$workdir.ended"
  if ((ended != 0)) && [[ "$bucket" != none ]]; then
    gcloud storage cp "$workdir.ended" "$bucket/exit_status/${number:-unknown}" || true
  fi
}

if [[ "$dry_run" == false ]]; then
  [[ ! -e "$workdir.ended" ]] || exit 0
  echo "$$" >"$workdir.lock"
  trap 'stopped=true; exit 143' INT TERM
  trap report EXIT
fi

metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number
ask=(curl --silent --fail --header 'Metadata-Flavor: Google' "$metadata")
if [[ -z "$number" && "$dry_run" == true ]]; then
  run "${ask[@]}"
  number=0
elif [[ -z "$number" ]]; then
  number="$("${ask[@]}")" || fail "the metadata server does not say which host of the slice this is"
fi
keeps=false
[[ "$number" != 0 || "$bucket" == none ]] || keeps=true

keep() {
  # A file caught half-written is no harm: a damaged checkpoint falls back to the one before.
  run gcloud storage rsync --recursive "$workdir" "$bucket" || true
}

bucket_holds_something() {
  local answer
  if [[ "$dry_run" == true ]]; then
    run gcloud storage ls "$bucket"
  elif ! answer="$(gcloud storage ls "$bucket" 2>&1)"; then
    # Only this answer means empty: after any other, starting afresh would pay again for what the bucket may hold.
    [[ "$answer" == *"matched no objects"* ]] || fail "$bucket cannot be listed: ${answer##*$'\n'}"
    return 1
  fi
}

copy_every_minute() {
  local sleeper=
  # A copy under way is finished, so that it cannot overwrite the last one.
  trap 'kill "$sleeper" 2>/dev/null; exit' TERM
  while true; do
    sleep 60 &
    sleeper=$!
    wait "$sleeper"
    keep
  done
}

if [[ "$data" != none ]]; then
  run mkdir -p data
  run gcloud storage rsync --recursive "$data" data || fail "$data could not be copied to this host"
  [[ " $*" == *" --config.data.root"* ]] || set -- "$@" --config.data.root=data
fi

if [[ "$keeps" == true && ! -d "$workdir" ]]; then # a fresh machine; on a restarted one it is newer than the bucket
  partial="$workdir.partial"                       # the workdir is there only once it is complete
  run rm -rf "$partial"
  run mkdir -p "$partial"
  if bucket_holds_something; then
    run gcloud storage rsync --recursive "$bucket" "$partial" || fail "$bucket could not be copied to this host"
    run rm -rf "$partial/exit_status" # the next copy to the bucket would bring back what was taken away there
  fi
  run mv "$partial" "$workdir"
fi

job=(launch/resume.sh .venv/bin/python -m craft_jax.main "--workdir=$workdir" "$@")
if [[ "$dry_run" == true ]]; then
  run "${job[@]}"
  if [[ "$keeps" == true ]]; then
    echo "every minute, and when the job has ended:"
    keep
  fi
  if [[ "$bucket" != none ]]; then
    echo "where it ended with an error, its status:"
    run gcloud storage cp "$workdir.ended" "$bucket/exit_status/$number"
  fi
  exit 0
fi

"${job[@]}" & # not through a function: the signal must reach resume.sh and not a subshell
process=$!
trap 'stopped=true; kill -TERM "$process" 2>/dev/null || true' INT TERM
copier=
if [[ "$keeps" == true ]]; then
  copy_every_minute &
  copier=$!
fi
wait_for "$process"
ended=$status
if [[ "$keeps" == true ]]; then
  kill "$copier" 2>/dev/null || true
  wait_for "$copier"
  keep
fi
exit "$ended"
