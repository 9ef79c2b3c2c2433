"""torch modules as ONNX files that say the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
import transformers

from prosampler import ExportError
from prosampler.export import export_model


def run(path, **inputs):
    # It crashes over some models in 16 bits; the package and its pipelines do without, too.
    broken = ["FuseFp16InitializerToFp32NodeTransformer"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"], disabled_optimizers=broken)
    return session.run(None, {name: np.asarray(value) for name, value in inputs.items()})[0]


def axes(path):
    """The named axes of the inputs and the output."""
    graph = onnx.load(path).graph
    found = {}
    for value in [*graph.input, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        found[value.name] = [dim.dim_param or dim.dim_value for dim in dims]
    return found


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 8)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, input_ids, attention_mask):
        return self.dropout(self.embedding(input_ids))


def test_states_of_tokens_are_pooled_under_their_mask(tmp_path):
    model = Model().train()
    ids, mask = torch.randint(0, 50, (3, 5)), torch.ones(3, 5, dtype=torch.long)
    free = {"input_ids": (1,), "attention_mask": (1,)}
    path = export_model(
        model, tmp_path / "new/model.onnx", {"input_ids": ids, "attention_mask": mask}, dynamic_axes=free
    )
    # It is left as it was.
    assert model.training
    assert model.dropout.training
    assert all(p.requires_grad for p in model.parameters())
    ids, mask = torch.randint(0, 50, (7, 9)), torch.ones(7, 9, dtype=torch.long)
    mask[:, 4:] = 0
    expected = model.embedding(ids[:, :4]).mean(1)
    expected = (expected / expected.norm(dim=1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(run(path, input_ids=ids, attention_mask=mask), expected, atol=1e-5)
    shapes = axes(path)
    assert list(shapes) == ["input_ids", "attention_mask", "sentence_embedding"]
    assert isinstance(shapes["sentence_embedding"][0], str)
    assert shapes["sentence_embedding"][1] == 8
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_a_backbone_of_torchvision_without_its_classifier(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    path = export_model(model, tmp_path / "model.onnx", image_size=(3, 32, 32))
    assert isinstance(model.fc, torch.nn.Linear)
    pictures = torch.rand(5, 3, 32, 32)
    found = run(path, pixel_values=pictures)
    assert found.shape == (5, 512)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    model.fc = torch.nn.Identity()
    expected = torch.nn.functional.normalize(model.eval()(pictures)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_in_16_bits_it_is_half_as_large(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 64))
    inputs = {"x": torch.rand(4, 64)}
    whole = export_model(model, tmp_path / "32.onnx", inputs, normalize=False)
    half = export_model(model, tmp_path / "16.onnx", inputs, normalize=False, fp16=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    found = run(half, x=inputs["x"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run(whole, x=inputs["x"]), atol=1e-2)


class Transformer(torch.nn.Module):
    def __init__(self, is_pre_norm):
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 32)
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True, norm_first=is_pre_norm)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids, attention_mask):
        return self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)


def bert():
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    return transformers.BertModel(config, add_pooling_layer=False)


@pytest.mark.parametrize("model", [bert(), Transformer(False), Transformer(True)], ids=["bert", "post", "pre"])
@pytest.mark.parametrize("fp16", [False, True])
def test_fused_it_gives_the_same_vectors(tmp_path, model, fp16):
    torch.manual_seed(0)
    inputs = {"input_ids": torch.randint(0, 50, (3, 5)), "attention_mask": torch.ones(3, 5, dtype=torch.long)}
    free = dict.fromkeys(inputs, (1,))
    plain, fused = (
        export_model(model, tmp_path / f"{fuse}.onnx", inputs, dynamic_axes=free, fp16=fp16, fuse=fuse)
        for fuse in (False, True)
    )
    ids, mask = torch.randint(0, 50, (7, 9)), torch.ones(7, 9, dtype=torch.long)
    mask[:, 4:] = 0
    expected = run(plain, input_ids=ids, attention_mask=mask)
    np.testing.assert_allclose(run(fused, input_ids=ids, attention_mask=mask), expected, atol=5e-3 if fp16 else 1e-5)
    if isinstance(model, transformers.BertModel):
        # The mask may hide the end of a row alone.
        mask[0] = torch.tensor([0, 1, 1, 1, 0, 0, 0, 0, 0])
        found = run(fused, input_ids=ids, attention_mask=mask)
        assert np.isnan(found[0]).all()
        np.testing.assert_array_equal(found[1:], run(fused, input_ids=ids, attention_mask=(ids * 0 + mask[1]))[1:])
        mask[0] = mask[1]
    # What is masked is not looked at.
    other = torch.where(mask == 1, ids, 7)
    np.testing.assert_allclose(run(fused, input_ids=other, attention_mask=mask), expected, atol=5e-3 if fp16 else 1e-5)
    assert all(node.domain == "" for node in onnx.load(plain).graph.node)
    own = {node.op_type for node in onnx.load(fused).graph.node if node.domain == "com.microsoft"}
    assert "SkipLayerNormalization" in own
    if isinstance(model, transformers.BertModel):
        assert {"Attention", "BiasGelu"} <= own


class NonDeterministic(torch.nn.Module):
    """Gives other vectors every time."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Diverged(torch.nn.Module):
    def forward(self, x):
        return x * torch.nan


class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "inputs", "part"),
    [
        (NonDeterministic(), {"x": torch.rand(3, 4)}, "from torch's, more than the tolerance"),
        (Diverged(), {"x": torch.rand(3, 4)}, "not finite"),
        (Branching(), {"x": torch.rand(3, 4)}, "torch cannot export Branching"),
        (torch.nn.Linear(4, 3), None, "needs examples"),
        (torch.nn.Linear(4, 3), {"x": torch.rand(1, 4)}, "at least two rows"),
    ],
)
def test_what_cannot_be_exported_leaves_the_file_as_it_was(tmp_path, model, inputs, part):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    with pytest.raises(ExportError, match=part):
        export_model(model, path, inputs)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
