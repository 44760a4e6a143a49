"""RecBole's half of the pair: epochs of one model in an interpreter that has RecBole 1.2.1 and need not have anything of ours.

`python recbole_side.py FOLDER MODEL DIMENSIONS EPOCHS` prints the processor seconds of each epoch as JSON; FOLDER holds the
data set `pair` in RecBole's atomic files.
"""

from __future__ import annotations

import json
import sys
import time

import scipy.sparse as sp
import torch

# This folder holds a module of RecBole's name.
sys.path.pop(0)
# RecBole 1.2.1 fills a sparse matrix by a method that later releases of scipy have dropped; not within an epoch.
if not hasattr(sp.dok_matrix, "_update"):
    sp.dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed


def main(folder: str, model: str, dimensions: int, epochs: int) -> None:
    """Train and print."""
    settings = {
        "data_path": folder,
        "checkpoint_dir": folder,
        "benchmark_filename": ["train", "valid", "test"],
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
        "embedding_size": dimensions,
        "n_layers": 2,
        "train_batch_size": 2048,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
    }
    sys.argv = sys.argv[:1]
    config = Config(model=model, dataset="pair", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    # RecBole's reproducibility switches off sums in any order, which on a CPU costs it time: give it the faster ones.
    torch.use_deterministic_algorithms(False)
    train = data_preparation(config, create_dataset(config))[0]
    trainer = Trainer(config, get_model(config["model"])(config, train.dataset))
    seconds = []
    for epoch in range(epochs):
        started = time.process_time()
        trainer._train_epoch(train, epoch)
        seconds.append(time.process_time() - started)
    print(json.dumps({"seconds": seconds, "rows": len(train.dataset), "steps": len(train)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
