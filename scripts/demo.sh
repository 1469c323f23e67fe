#!/usr/bin/env bash
# The main job: train the batch-size study on bundled real data, draw it, judge it.
# More overrides may follow: bash scripts/demo.sh scale=smoke results_dir=/tmp/demo
source "$(dirname "$0")/setup.sh"

folder=() scale=(scale=demo)
for word in "$@"; do
  case "$word" in
    results_dir=*) folder=("$word") ;;
    scale=*) scale=() ;;
  esac
done
bnstudy study batch_size "${scale[@]}" "$@"
bnstudy report "${folder[@]}"
