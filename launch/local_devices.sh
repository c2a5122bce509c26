#!/usr/bin/env bash
# The main job on simulated devices, to see that any number of devices and hosts gives the same numbers:
#
#   launch/local_devices.sh --devices=4 -- --config=demo --workdir=runs/four
#   launch/local_devices.sh --devices=2 --hosts=2 -- --config=demo --workdir=runs/two_hosts
#
# --devices: simulated devices of each process. --hosts: processes (1), which meet on --port (29500) of this machine.
# What follows -- goes to craft-jax tune. --dry-run prints every command instead. PYTHON names the interpreter.
# Costs nothing but this machine's processor: simulated devices share it, so more of them are no faster.
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/local_devices.sh --devices=N [--hosts=1] [--port=29500] [--dry-run] -- --config=FILE ..."
devices='' hosts=1 port=29500
settings="devices hosts port"
read_arguments "$@"
[[ "$devices" =~ ^[1-9][0-9]*$ ]] || fail "--devices=N is missing or no number; $usage"
[[ "$hosts" =~ ^[1-9][0-9]*$ ]] || fail "--hosts=$hosts must be a number; $usage"

python="${PYTHON:-python}"
job=(env "JAX_PLATFORMS=cpu" "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
  "$python" -m craft_jax.main ${rest[@]+"${rest[@]}"})
if ((hosts == 1)); then
  [[ "$dry_run" == true ]] || exec "${job[@]}" # signals then reach Python itself
  run "${job[@]}"
  exit
fi

# Background processes are deaf to Ctrl-C, so they get SIGTERM: they save and exit with 75.
processes=() leaving=false
trap 'leaving=true; ((${#processes[@]} == 0)) || kill "${processes[@]}" 2>/dev/null || true' INT TERM
for ((host = 0; host < hosts; host++)); do
  [[ "$leaving" == false ]] || break
  meeting=("--coordinator=127.0.0.1:$port" "--process_count=$hosts" "--process_index=$host")
  if [[ "$dry_run" == true ]]; then
    run "${job[@]}" "${meeting[@]}"
  else
    "${job[@]}" "${meeting[@]}" &
    processes+=("$!")
  fi
done
worst=0
for process in ${processes[@]+"${processes[@]}"}; do
  wait_for "$process"
  ((status == 0)) || worst=$status
done
exit "$worst"
