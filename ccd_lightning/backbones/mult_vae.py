"""A variational auto-encoder over the users' rows of interactions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccd_lightning import functional as F
from ccd_lightning.backbones.base import Backbone, NewRows
from ccd_lightning.checks import require_number, require_whole, require_word
from ccd_lightning.data.history import History, Span
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.seeding import keyed_normal
from ccd_lightning.types import Interactions, Side, UserBatch, chunks

_ENCODED_USERS = 4096


class MultVAE(Backbone):
    """Mult-VAE (Liang et al., WWW 2018): encoder -> (mean, log-std) -> decoder -> softmax over the items.

    The noise is standard normal, drawn in training alone from (stage, step, user), so that it does not depend on how a
    batch is dealt out to processes; the reconstruction target is the 0/1 row. The weight of the KL term rises to
    ``max_anneal`` over ``anneal_steps`` steps. The shared weights are drawn when the model meets its first block.

    Args:
        dim: dimensions of the latent space and of the hidden layer.
        max_anneal: final weight of the KL term.
        anneal_steps: steps over which the weight rises from 0 to 1, cut at ``max_anneal``.
        history: which interactions a user's row holds: of the present block, or of all the blocks so far.
        soft_value: value of a soft positive in an input row.
    """

    batch_type = UserBatch

    def __init__(
        self,
        dim: int = 64,
        max_anneal: float = 0.2,
        anneal_steps: int = 200_000,
        history: Span = "cumulative",
        soft_value: float = 0.1,
    ) -> None:
        super().__init__()
        require_whole("dim", dim, 1)
        require_number("max_anneal", max_anneal, least=0)
        require_whole("anneal_steps", anneal_steps, 1)
        require_word("history", history, Span)
        require_number("soft_value", soft_value, above=0)
        self.dim, self.max_anneal, self.anneal_steps = dim, max_anneal, anneal_steps
        self.history, self.soft_value = history, soft_value
        self.encoder: nn.Parameter
        self.decoder: nn.Parameter
        self.decoder_bias: nn.Parameter
        self.add_rows("encoder", Side.ITEM, dim)
        self.add_rows("decoder", Side.ITEM, dim)
        self.add_rows("decoder_bias", Side.ITEM)
        self.encoder_bias = nn.Parameter(torch.zeros(dim))
        self.mean = nn.Linear(dim, dim)
        self.log_std = nn.Linear(dim, dim)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._rows = PairSet(*Interactions.empty(), 0, 0)
        self._soft = self._rows
        self._noise_seed = 0

    def meet(self, history: History, new_rows: NewRows, topk: int, generator: torch.Generator) -> None:
        """The same as of other models; shared weights and noise follow from the generator, the noise also when a stage goes on."""
        self._noise_seed = generator.initial_seed()
        if self.known_block < 0:
            self.reset(generator)
        super().meet(history, new_rows, topk, generator)

    def observe(self, history: History) -> None:
        """Take the users' input rows; soft positives of an earlier block are dropped."""
        self._rows = history.observed(self.history)
        self._soft = PairSet(*Interactions.empty(), self.num_users, self.num_items)

    def set_soft_positives(self, pairs: PairSet) -> None:
        """Add pairs to the input rows with the value ``soft_value``; observed pairs keep their 1."""
        known = self._rows.to(pairs.columns.device).contains(pairs.rows, pairs.columns)
        self._soft = PairSet(pairs.rows[~known], pairs.columns[~known], pairs.num_rows, pairs.num_columns)

    def loss(self, batch: UserBatch) -> Tensor:
        """Multinomial reconstruction plus annealed KL, mean over the rows of the global batch."""
        rows, items, values = self.input_rows(batch.users)
        mean, log_std = self.encode(rows, items, values, batch.users.numel())
        latent = mean
        if self.training:
            self.steps += 1
            noise = keyed_normal(batch.users, self.dim, self._noise_seed, "vae noise", int(self.steps))
            latent = mean + noise * log_std.exp()
        logits = self.decode(latent)
        totals = values.new_zeros(len(logits)).index_add_(0, rows, values)
        reconstruction = (totals * logits.logsumexp(-1)).sum() - (values * logits[rows, items]).sum()
        weight = F.annealed_weight(int(self.steps), self.anneal_steps, self.max_anneal)
        return (reconstruction + weight * F.gaussian_kl(mean, log_std).sum()) / batch.global_size

    def input_rows(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Non-zero entries of the input rows: positions in the batch, items, values, each ``(P,)``."""
        self._rows, self._soft = self._rows.to(users.device), self._soft.to(users.device)
        # Soft positives are there to learn from; rankings come from what was observed.
        hard, soft = self._rows.of(users), self._soft.of(users if self.training else users[:0])
        values = [torch.ones(hard[0].numel()), torch.full((soft[0].numel(),), self.soft_value)]
        return (
            torch.cat([hard[0], soft[0]]),
            torch.cat([hard[1], soft[1]]),
            torch.cat(values).to(users.device, self.encoder.dtype),
        )

    def encode(self, rows: Tensor, items: Tensor, values: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """Mean and log-std of the latent variable, each float ``(B, d)``, from the L2-normalised rows."""
        norms = values.new_zeros(batch_size).index_add_(0, rows, values**2).sqrt()
        weights = values / norms.clamp_min(1e-12)[rows]
        summed = torch.zeros(batch_size, self.dim, device=values.device, dtype=self.encoder.dtype)
        summed = summed.index_add(0, rows, weights[:, None] * F.gather_rows(self.encoder, items))
        hidden = torch.tanh(summed + self.encoder_bias)
        mean: Tensor = self.mean(hidden)
        log_std: Tensor = self.log_std(hidden)
        return mean, log_std

    def decode(self, latent: Tensor) -> Tensor:
        """Logits of all the items, float ``(B, I)``."""
        return latent @ self.decoder.T + self.decoder_bias

    def latent_means(self, users: Tensor) -> Tensor:
        """Mean of the latent variable, float ``(B, d)``."""
        return self.encode(*self.input_rows(users), users.numel())[0]

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the latent variable for the users' present rows, the decoder and its bias."""
        device = self.decoder.device
        means = [
            self.latent_means(torch.arange(part.start, part.stop, device=device))
            for part in chunks(self.num_users, _ENCODED_USERS)
        ]
        return torch.cat(means or [self.mean.bias[None, :][:0]]), self.decoder, self.decoder_bias

    def scores(self, users: Tensor) -> Tensor:
        """Logits at the mean of the latent variable: no noise outside training."""
        return self.decode(self.latent_means(users))

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits of single pairs at the mean of the latent variable, float ``(B,)``."""
        present, rows = torch.unique(users, return_inverse=True)
        latent = F.gather_rows(self.latent_means(present), rows)
        return (latent * F.gather_rows(self.decoder, items)).sum(-1) + F.gather_rows(self.decoder_bias, items)
