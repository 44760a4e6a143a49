"""Train, test, predict or export a stream from a configuration: `python train.py fit --config configs/ccd.yaml`."""

import sys

if __name__ == "__main__":
    # A server needs nothing of what training imports, which takes seconds and 300 MB.
    if sys.argv[1:2] == ["serve"]:
        from ccd_lightning.commands.serve import main
    else:
        from ccd_lightning.cli import main
    main()
