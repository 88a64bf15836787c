import pytest
import torch
import transformers
from conftest import FAMILIES, save_encoder
from torch import nn

from textlora.model import attention
from textlora.model.attention import attend


def compute_plainly(query, key, value, scale, bias):
    scores = query.double() @ key.double().transpose(-1, -2) * scale
    shares = torch.softmax(scores if bias is None else scores + bias.double(), dim=-1)
    return shares @ value.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 2, 53, 127, 128, 512])
@pytest.mark.parametrize("rows", ["all", "first"])
@pytest.mark.parametrize("biased", [False, True])
def test_every_length_and_format_gives_the_formula(dtype, length, rows, biased):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 8).to(dtype) for _ in range(3))
    query = query if rows == "all" else query[:, :, :1]
    bias = torch.randn(1, 3, query.shape[2], length).to(dtype) if biased else None
    found = attend(query, key, value, scale=0.3, bias=bias)
    expected = compute_plainly(query, key, value, 0.3, bias)
    # bfloat16 keeps 8 bits; values are about 1.
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert found.shape == query.shape
    assert torch.allclose(found.double(), expected, atol=tolerance)


def test_dropped_shares_keep_their_mean():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 6, 4) for _ in range(3))
    drop = nn.Dropout(0.3)
    drawn = [attend(query, key, value, scale=0.5, dropout=drop) for _ in range(3000)]
    exact = attend(query, key, value, scale=0.5)
    assert torch.allclose(torch.stack(drawn).mean(dim=0), exact, atol=0.06)
    assert not torch.allclose(drawn[0], exact, atol=0.06)
    assert torch.equal(attend(query, key, value, scale=0.5, dropout=drop.eval()), exact)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_own_layers_may_use_it(tmp_path, family):
    """With padding, by its interface; families that do not ask it are loaded without."""
    folder = save_encoder(tmp_path, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    token_ids = torch.randint(5, 40, (3, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(token_ids)
    mask[1, 9:] = 0
    found = []
    for name in ("eager", attention.register()):
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation=name).eval()
        if name != "eager" and not model._supports_sdpa:
            assert config.model_type in ("mpnet", "deberta-v2")
            continue
        with torch.no_grad():
            found.append(model(input_ids=token_ids, attention_mask=mask).last_hidden_state)
    kept = mask.bool()
    assert torch.allclose(found[0][kept], found[-1][kept], atol=1e-5)
