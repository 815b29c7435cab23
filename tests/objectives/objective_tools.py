"""What the tests of objectives share: random unit vectors and slow references by the definition, in float64."""

import math

import torch


def random_units(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(
        dtype
    )


def slow_softmax(logits):
    """Probabilities of a list of numbers of which -inf has none."""
    peak = max(logits)
    if peak == -math.inf:
        return [0.0] * len(logits)
    mass = sum(math.exp(x - peak) for x in logits)
    return [math.exp(x - peak) / mass for x in logits]


def slow_spread(soft, i, visible):
    """S of query i over the visible columns, one product at a time."""
    keys = soft.keys[i] if soft.keys.dim() == 3 else soft.keys
    logits = []
    for j, key in enumerate(keys.double()):
        bias = 0.0 if soft.bias is None else float(soft.bias[j] if soft.bias.dim() == 1 else soft.bias[i, j])
        x = sum(q * k for q, k in zip(soft.queries[i].tolist(), key.tolist(), strict=True))
        logits.append(x / soft.temperature + bias if j in visible else -math.inf)
    return slow_softmax(logits)


def slow_xid(queries, targets, positive, visible, temperature, soft=None):
    """Losses and their gradients to the queries and to each query's candidates: [B], [B, D], [B, J, D], in float64.

    visible: for each query the list of columns that are candidates.
    """
    queries, targets = queries.detach().double(), targets.detach().double()
    losses, to_queries, to_targets = [], torch.zeros_like(queries), torch.zeros(len(queries), *targets.shape[-2:])
    to_targets = to_targets.double()
    for i, query in enumerate(queries):
        own = targets[i] if targets.dim() == 3 else targets
        x = [float(query @ t) / temperature if j in visible[i] else -math.inf for j, t in enumerate(own)]
        posterior = slow_softmax(x)
        target = [float(j == positive[i]) for j in range(len(own))]
        if soft is not None:
            columns = [j for j in visible[i] if soft.own or j != positive[i]]
            spread = slow_spread(soft, i, columns)
            if sum(spread) > 0:
                target = [(1 - soft.share) * t + soft.share * s for t, s in zip(target, spread, strict=True)]
        losses.append(-sum(t * math.log(p) for t, p in zip(target, posterior, strict=True) if t > 0))
        for j, (p, t) in enumerate(zip(posterior, target, strict=True)):
            to_queries[i] += (p - t) * own[j] / temperature
            to_targets[i, j] += (p - t) * query / temperature
    return torch.tensor(losses, dtype=torch.float64), to_queries, to_targets
