#!/usr/bin/env bash
# What slurm.sh runs as every task: a command, whose status it passes on. Where that means a failure that a requeue does
# not mend, it is left in a file too:
#
#   launch/slurm_task.sh FILE COMMAND ...
#
# --dry-run as the first argument prints the command instead.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
(($# >= 2)) || fail "usage: launch/slurm_task.sh [--dry-run] FILE COMMAND ..."
file="$1"
shift
if [[ "$dry_run" == true ]]; then
  run "$@"
  exit 0
fi

process='' leaving=false
# shellcheck disable=SC2317,SC2329  # the trap calls it
pass_on() { # SLURM may signal this script alone
  leaving=true
  [[ -z "$process" ]] || kill -TERM "$process" 2>/dev/null || true
}
trap pass_on INT TERM
"$@" &
process=$!
[[ "$leaving" == false ]] || pass_on # the signal came before the process was known
wait_for "$process"
case "$status" in
  0 | 75 | 134 | 137 | 143) ;; # finished, saved, lost another host, killed
  *) echo "task ${SLURM_PROCID:-0} ended with status $status" >>"$file" ;;
esac
exit "$status"
