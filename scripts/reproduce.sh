#!/usr/bin/env bash
# Make the committed reference results anew: results/<study>/ and results/report.html.
# Takes the scale as its first word (default: quick).
source "$(dirname "$0")/setup.sh"
scale=${1:-quick}

bnstudy study all "scale=$scale"
for folder in results/runs/studies/*/; do
  study=$(basename "$folder")
  newest=$(ls -td "$folder$scale"-*/ 2>/dev/null | head -n 1)
  [ -n "$newest" ] || continue
  mkdir -p "results/$study"
  for file in table.csv figure.svg figure.png claims.json study.json; do
    cp "$newest/$file" "results/$study/$file"
  done
done
bnstudy report
cp results/runs/report.html results/report.html
