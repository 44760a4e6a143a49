#!/usr/bin/env bash
# Learn what is new in the source, then hand over the student and everybody's recommendations.
# For cron or a SLURM job, from the project's folder: examples/nightly.sh RUN CONFIG [OVERLAY ...]. Killed and called
# again, it goes on.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: examples/nightly.sh RUN CONFIG [OVERLAY ...]" >&2
  exit 2
fi
run=$1
python=${PYTHON:-python}

configs=()
for file in "${@:2}"; do configs+=(--config "$file"); done
resume=()
if [ -e "$run/stream.json" ]; then resume=(--ckpt_path last); fi
"$python" train.py fit "${configs[@]}" --trainer.default_root_dir "$run" "${resume[@]}"
"$python" train.py predict --config "$run/config.yaml" --ckpt_path last
"$python" train.py export --config "$run/config.yaml" --ckpt_path last
