"""Bayesian prompt learning against its equations, in float64; its draws."""

import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature
from torch.testing import assert_close


def naive_network(net, x):
    """Linear, ELU, Linear, ELU, Linear."""
    for i in (0, 2, 4):
        x = net.module[i].weight @ x + net.module[i].bias
        if i < 4:
            x = torch.stack([v if v > 0 else torch.exp(v) - 1 for v in x])
    return x


def naive_log_probabilities(frozen, learned, image_features, noise):
    """log mean_l p_l of each picture, and the mean KL(q || N(0, 1)); noise [L, batch, d_txt]."""
    rows, divergences = [], []
    for i, f in enumerate(image_features):
        mean = naive_network(learned.meta_net.weight_mean, f / f.norm())
        log_variance = naive_network(learned.meta_net.weight_log_variance, f / f.norm())
        variance = torch.exp(log_variance)
        divergences.append(((variance + mean**2 - 1 - log_variance) / 2).sum() / len(mean))
        total = 0
        for sample in noise:
            ctx = learned.ctx + mean + variance.sqrt() * sample[i]
            features = [
                rows_to_feature(frozen.model, prompt_rows(frozen.model, ctx, n)) for n in NAMES
            ]
            logits = torch.stack([frozen.logit_scale.exp() * cosine(f, t) for t in features])
            total = total + logits.exp() / logits.exp().sum()
        rows.append((total / len(noise)).log())
    return torch.stack(rows), sum(divergences) / len(divergences)


def test_loss_and_gradients(frozen64, image_features, label, build, close, shapes):
    """-log of the mean probability of the label, plus 0.001 KL; each picture with its own noise."""
    built = build("BayesianPrompt", frozen64, TEXT_BATCH=20)
    model = built.model.double().train()

    torch.manual_seed(3)
    log_p, losses = model.from_features(image_features, label)
    torch.manual_seed(3)
    noise = torch.randn(10, 3, 64, dtype=torch.float64)
    naive, kl = naive_log_probabilities(frozen64, model.learned, image_features, noise)

    close(log_p, naive)
    learned = list(model.learned.parameters())
    naive_loss = cross_entropy(naive, label) + 0.001 * kl
    close(sum(losses.values()), naive_loss, learned)
    expected = {"ctx": (4, 64)}
    for net in ("weight_mean", "weight_log_variance"):
        for i, shape in {0: (24, 48), 2: (24, 24), 4: (64, 24)}.items():
            expected[f"meta_net.{net}.module.{i}.weight"] = shape
            expected[f"meta_net.{net}.module.{i}.bias"] = shape[:1]
    assert shapes(model) == expected


def test_evaluation_can_be_repeated(frozen64, image_features, build):
    """It follows from the picture alone, whatever the batch, the order, or earlier draws."""
    built = build("BayesianPrompt", frozen64)
    model = built.model.double()
    model.learned.eval()
    with torch.no_grad():
        whole = model.from_features(image_features).logits
        torch.randn(7)
        single = [model.from_features(f[None]).logits for f in image_features.flip(0)]
        single = torch.cat(single).flip(0)
    again = build("BayesianPrompt", frozen64).model.double()
    again.learned.load_state_dict(model.learned.state_dict())
    again.learned.eval()

    assert_close(single, whole)
    assert_close(again.from_features(image_features).logits, whole)
    assert_close(whole.exp().sum(dim=1), torch.ones(3, dtype=torch.float64))
    naive, _ = naive_log_probabilities(
        frozen64, model.learned, image_features, model.noise.expand(-1, 3, -1)
    )
    assert_close(whole, naive, rtol=0, atol=1e-10)


def test_training_draws_apart_for_every_picture(frozen64, build):
    """Two equal pictures of a batch meet different noise, and a step never meets the last one's."""
    model = build("BayesianPrompt", frozen64).model.double().train()
    picture = torch.randn(1, 48, dtype=torch.float64).expand(2, -1)
    with torch.no_grad():
        first, second = (model.from_features(picture).logits for _ in range(2))

    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, second)


def test_one_sample_of_no_variance_is_cocoop_like(frozen64, image_features, build):
    """With L = 1 and no variance the scores are the log-softmax of one conditional prompt's."""
    built = build("BayesianPrompt", frozen64, SAMPLES=1)
    model = built.model.double()
    mean, _ = model.learned.distribution(image_features)

    log_p = model.score(image_features, mean.unsqueeze(0))

    assert_close(log_p.logsumexp(dim=1), torch.zeros(3, dtype=torch.float64))
    assert_close(model.score(image_features, mean.expand(5, -1, -1)), log_p)


def test_published_checkpoint(frozen64, build):
    """The state's names are the original's."""
    built = build("BayesianPrompt", frozen64)
    state = {k: torch.randn_like(v) for k, v in built.model.learned.state_dict().items()}
    assert "meta_net.weight_mean.module.0.weight" in state
    assert "meta_net.weight_log_variance.module.4.bias" in state

    built.load(state | {"token_prefix": torch.zeros(3, 1, 64)})

    for name, value in built.model.learned.state_dict().items():
        assert torch.equal(value, state[name])
