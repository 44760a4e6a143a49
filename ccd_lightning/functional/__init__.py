"""The maths of continual collaborative distillation: pure tensors in, tensors out."""

from __future__ import annotations

from ccd_lightning.functional.continual import (
    backward_transfer,
    forgetting,
    forward_transfer,
    h_mean,
    learning_average,
    retained_average,
)
from ccd_lightning.functional.distillation import (
    SCORE_CAP,
    masked_logsumexp,
    relaxed_ranking_loss,
    relaxed_ranking_loss_from_rest,
    sampled_logsumexp,
)
from ccd_lightning.functional.graph import (
    lightgcn_layers,
    lightgcn_propagation,
    normalised_adjacency,
    similarity_graph,
    symmetric_matmul,
)
from ccd_lightning.functional.graph_distillation import (
    cluster_affinity,
    cluster_loss,
    importance_weights,
    neighbour_distillation,
    raw_importance,
)
from ccd_lightning.functional.initialization import init_new_rows
from ccd_lightning.functional.losses import (
    annealed_weight,
    bpr_loss,
    gather_rows,
    gaussian_kl,
    listed_products,
    multinomial_loss,
    products,
    soft_label_loss,
)
from ccd_lightning.functional.neighbour_loss import neighbour_loss, places, sampled_neighbour_loss
from ccd_lightning.functional.ranking import (
    count_higher,
    fuse_ranks,
    hit_rate,
    ndcg,
    order_items,
    rank_items,
    ranks_of,
    recall,
)
from ccd_lightning.functional.replay import larger_labels, merge_proxy, replay_weights, sample_without_replacement

__all__ = [
    "SCORE_CAP",
    "annealed_weight",
    "backward_transfer",
    "bpr_loss",
    "cluster_affinity",
    "cluster_loss",
    "count_higher",
    "forgetting",
    "forward_transfer",
    "fuse_ranks",
    "gather_rows",
    "gaussian_kl",
    "h_mean",
    "hit_rate",
    "importance_weights",
    "init_new_rows",
    "larger_labels",
    "learning_average",
    "lightgcn_layers",
    "lightgcn_propagation",
    "listed_products",
    "masked_logsumexp",
    "merge_proxy",
    "multinomial_loss",
    "ndcg",
    "neighbour_distillation",
    "neighbour_loss",
    "normalised_adjacency",
    "order_items",
    "places",
    "products",
    "rank_items",
    "ranks_of",
    "raw_importance",
    "recall",
    "relaxed_ranking_loss",
    "relaxed_ranking_loss_from_rest",
    "replay_weights",
    "retained_average",
    "sample_without_replacement",
    "sampled_logsumexp",
    "sampled_neighbour_loss",
    "similarity_graph",
    "soft_label_loss",
    "symmetric_matmul",
]
