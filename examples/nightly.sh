#!/usr/bin/env bash
# Learn what is new in the source, then hand over the student and everybody's recommendations.
# For cron or a SLURM job, from the project's folder: examples/nightly.sh CONFIG RUN. Killed and called again, it goes on.
set -euo pipefail
config=${1:?usage: examples/nightly.sh CONFIG RUN}
run=${2:?usage: examples/nightly.sh CONFIG RUN}
python=${PYTHON:-python}

resume=()
if [ -e "$run/stream.json" ]; then resume=(--ckpt_path last); fi
"$python" train.py fit --config "$config" --trainer.default_root_dir "$run" "${resume[@]}"
"$python" train.py predict --config "$run/config.yaml" --ckpt_path last
"$python" train.py export --config "$run/config.yaml" --ckpt_path last
