#!/usr/bin/env bash
# The main job on TPU hosts of a GKE cluster, as the JobSet of gke.yaml; restarted and resumed when it is preempted:
#
#   launch/gke.sh create --name=craft --image=REGION-docker.pkg.dev/PROJECT/REPO/craft_jax:tpu --bucket=my-bucket \
#       --accelerator=tpu-v5-lite-podslice --topology=4x4 --hosts=4 --chips=4 -- --config=demo
#   launch/gke.sh logs   --name=craft
#   launch/gke.sh fetch  --name=craft --bucket=my-bucket --to=runs/craft
#   launch/gke.sh delete --name=craft
#
# create applies the JobSet; where node pools scale by themselves it costs hosts x chips from then until the job ends or
# `delete`; nodes of a pool of fixed size cost until the pool is deleted, `delete` or not. --spot asks for spot nodes.
# --namespace (default), --account (default): the Kubernetes service account that may write the bucket.
# Every host needs the photographs: put them into the bucket, which is mounted at /runs, and say where
# (--config=caltech --config.data.root=/runs/DATA); demo brings its own.
# --dry-run prints the manifest and the commands instead.
# shellcheck disable=SC2034 # settings are read by their names
set -euo pipefail
# shellcheck source=launch/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="usage: launch/gke.sh create|logs|fetch|delete --name=N [--namespace=default] [--dry-run] ...
  create: --image=I --bucket=B --accelerator=A --topology=T --hosts=N --chips=N [--spot] [--account=default] -- --config=FILE
  fetch: --bucket=B --to=FOLDER"
verb="${1:-}"
[[ "$verb" =~ ^(create|logs|fetch|delete|--help)$ ]] || fail "a verb is missing; $usage"
[[ "$verb" != --help ]] || { echo "$usage" && exit 0; }
shift

name='' image='' bucket='' accelerator='' topology='' hosts='' chips='' to='' namespace=default account=default spot=false
settings="name image bucket accelerator topology hosts chips to namespace account" switches="spot"
read_arguments "$@"

needs name

manifest() {
  local text arguments='' argument setting
  shopt -u patsub_replacement 2>/dev/null || true # from bash 5.2 on, `&` would stand for what is replaced
  text="$(<"$(dirname "${BASH_SOURCE[0]}")/gke.yaml")"
  for argument in "$@"; do
    argument="${argument//\\/\\\\}"
    arguments+=", \"${argument//\"/\\\"}\""
  done
  for setting in name namespace image bucket accelerator topology hosts chips account; do
    text="${text//"{{$setting}}"/${!setting}}"
  done
  text="${text//"{{arguments}}"/$arguments}"
  if [[ "$spot" == true ]]; then
    text="${text//"# spot: "/}"
  fi
  printf '%s\n' "$text"
}

case "$verb" in
  create)
    needs image bucket accelerator topology hosts chips
    ((${#rest[@]} > 0)) || fail "-- --config=FILE is missing for create; $usage"
    [[ " ${rest[*]}" != *" --workdir"* ]] || fail "--workdir is the script's own: the folder $name of the bucket"
    if [[ "$dry_run" == true ]]; then
      manifest "${rest[@]}"
      echo "+ kubectl apply --filename=- < (the manifest above)"
    else
      manifest "${rest[@]}" | kubectl apply --filename=-
    fi
    ;;
  logs) # kubectl by itself refuses to follow more than five pods
    run kubectl logs "--namespace=$namespace" "--selector=jobset.sigs.k8s.io/jobset-name=$name" --container=craft \
      --follow --prefix --max-log-requests=1000
    ;;
  fetch)
    needs bucket to
    run mkdir -p "$to"
    run gcloud storage rsync --recursive "gs://$bucket/$name" "$to"
    ;;
  delete) run kubectl delete jobset "$name" "--namespace=$namespace" ;;
esac
