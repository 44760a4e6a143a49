"""Train, test, predict or export a stream from a configuration: `python train.py fit --config configs/ccd.yaml`."""

from ccd_lightning.cli import main

if __name__ == "__main__":
    main()
