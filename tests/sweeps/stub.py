"""Stands for `train.py fit`: as quick as a trial can be, with the files that a sweep looks at.

After each of three blocks the student's H-mean is ``--good`` plus a hundredth of the block. ``--do`` says what happens after D_1:
``crash``, ``kill`` (by itself), ``hang`` (unless it goes on from a checkpoint), or nothing;
``diverge`` ends as a mistake in the input does; ``mute`` measures nothing before D_1. An option ``--mistyped`` is refused.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

OWN = 0.5
"""``good`` of the configuration."""


def main() -> None:
    if any(argument.startswith("--mistyped") for argument in sys.argv):
        print("error: There is no option `mistyped`; did you mean `good`?", file=sys.stderr)
        sys.exit(2)
    if "--print_config" in sys.argv:
        print(f"# stub\ngood: {OWN}\ndo: null\ntrainer: {{class_path: Trainer, init_args: {{rate: 3}}}}")
        return
    given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
    run = Path(given["trainer.default_root_dir"])
    (run / "config.yaml").write_text("report: {metric: recall@20}")
    (run / "checkpoints").mkdir(exist_ok=True)
    values: list[float | None] = []
    print("argument", " ".join(sys.argv[1:]), flush=True)
    for block in range(3):
        is_mute = given.get("do") == "mute" and not block
        values.append(None if is_mute else float(given.get("good", OWN)) + block / 100)
        draft = run / "metrics.tmp"
        draft.write_text(json.dumps({"student": {"recall@20": {"H": values}}, "teacher": {}, "distilled": {}}))
        draft.replace(run / "metrics.json")
        (run / "checkpoints" / f"{block + 1:05d}-block{block}-distillation.ckpt").touch()
        if block == 1 and given.get("do") == "crash":
            sys.exit("error: the disk is full")
        if block == 1 and given.get("do") == "diverge":
            print("error: block1-base-0: the objective `own` was not finite", file=sys.stderr)
            sys.exit(2)
        if block == 1 and given.get("do") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if block == 1 and given.get("do") == "hang" and "ckpt_path" not in given:
            time.sleep(600)


if __name__ == "__main__":
    main()
