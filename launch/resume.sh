#!/usr/bin/env bash
# Runs a command again for as long as it says that the same command resumes it:
#
#   launch/resume.sh python -m craft_jax.main --config=configs/demo.py --workdir=runs/demo
#
# Exit status 75: it was asked to stop (SIGTERM) and saved a checkpoint, or lost another host. Status 134: JAX itself
# aborted it because another host fell silent. Any other status is passed on. SIGTERM to this script is passed to the
# command, and then nothing is started again: the machine is about to go.
#
# MAX_RESTARTS (100) bounds the restarts, RESTART_DELAY (10) is the pause between them in seconds.
# --dry-run as the first argument prints the command instead.
set -euo pipefail

if [[ "${1:-}" == "--dry-run" ]]; then
  shift
  echo "repeat while the exit status is 75 or 134, at most ${MAX_RESTARTS:-100} times:"
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  exit 0
fi
if (($# == 0)); then
  echo "usage: launch/resume.sh [--dry-run] COMMAND ..." >&2
  exit 2
fi

leaving=false
child=
# shellcheck disable=SC2317,SC2329  # the trap calls it
pass_on() {
  leaving=true
  [[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null || true
}
trap pass_on TERM

restarts=0
while true; do
  "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # the trap has interrupted the wait
    status=0
    wait "$child" || status=$?
  done
  child=
  if [[ "$leaving" == true ]] || ((status != 75 && status != 134)); then
    exit "$status"
  fi
  if ((restarts >= ${MAX_RESTARTS:-100})); then
    echo "resume.sh: stopped with status $status after $restarts restarts" >&2
    exit "$status"
  fi
  restarts=$((restarts + 1))
  reason="stopped early or lost another host"
  ((status == 75)) || reason="was aborted: another host fell silent"
  echo "resume.sh: the command $reason (status $status); restart $restarts in ${RESTART_DELAY:-10} s" >&2
  sleep "${RESTART_DELAY:-10}"
done
