#!/usr/bin/env bash
# Make the committed reference results anew: results/<study>/ and results/report.html.
# Takes the scale as its first word (default: quick).
source "$(dirname "$0")/setup.sh"
scale=${1:-quick}

for study in batch_size normalization_batch; do
  bnstudy study "$study" "scale=$scale"
  newest=$(ls -td results/runs/studies/"$study"/"$scale"-*/ | head -n 1)
  mkdir -p "results/$study"
  for file in table.csv figure.svg figure.png claims.json study.json; do
    cp "$newest/$file" "results/$study/$file"
  done
done
bnstudy report
cp results/runs/report.html results/report.html
